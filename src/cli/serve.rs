//! `copyd serve`, and the spawner that it starts for itself.

use super::args::{ServeArgs, SpawnerArgs};
use super::output::log_to_stderr;
use super::{failed, printed};
use crate::daemon::{self, Config, Place, Setup};
use crate::error::{Error, ExitCode};
use crate::store::StateDir;
use crate::sys;

/// Runs the daemon until a signal ends it.
pub fn serve(args: &ServeArgs) -> ExitCode {
    if args.example_config {
        return printed(Ok(Config::example().into_bytes()));
    }
    log_to_stderr();
    let options = StateDir::resolve(args.state_dir.as_deref()).map(|state_dir| daemon::Options {
        config: args.config.clone(),
        socket: args.socket.clone(),
        engine_dir: args.engine_dir.clone().unwrap_or_else(|| state_dir.join("engine")),
        state_dir,
        spawner: args.spawner.clone(),
    });
    match options.and_then(|options| daemon::serve(&options)) {
        Ok(exit) => exit,
        Err(error) => failed(&error),
    }
}

/// Runs the spawner until nobody needs it.
pub fn spawner(args: &SpawnerArgs) -> ExitCode {
    log_to_stderr();
    let run = || {
        let config = Config::load(args.config.as_deref())?;
        let engine_dir = match &args.engine_dir {
            Some(directory) => directory.clone(),
            None => StateDir::resolve(args.state_dir.as_deref())?.join("engine"),
        };
        let place = match args.link {
            Some(number) => Place::Parent(number),
            None => Place::Socket(socket_of_the_service_manager()?),
        };
        daemon::spawn_for(&place, Setup { config, engine_dir, isolated: sys::sees_trusted() })
    };
    match run() {
        Ok(()) => ExitCode::Complete,
        Err(error) => failed(&error),
    }
}

/// The one socket that came with the process, see sd_listen_fds(3).
fn socket_of_the_service_manager() -> Result<i32, Error> {
    let numbers = daemon::handed_over();
    if numbers.len() == 1 {
        return Ok(numbers.start);
    }
    Err(Error::Usage {
        what: "no link was handed over".into(),
        remedy: "the spawner is started by `copyd serve`, or by the service manager with one socket",
    })
}

//! The binary: everything is in [`copyd::cli`].

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(copyd::cli::main() as u8)
}

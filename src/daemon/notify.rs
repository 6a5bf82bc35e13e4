//! What the service manager is told and asked, see sd_notify(3), and what it hands over, see sd_listen_fds(3).

use std::time::Duration;

use sd_notify::NotifyState;

/// Callers can come.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The end has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// It still turns round.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How long the service manager waits for [`alive`]; none where it does not.
#[must_use]
pub fn patience() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager can't be told");
    }
}

/// The numbers of the sockets that came with this process, in order. They are taken with
/// [`crate::sys::take_inherited`].
#[must_use]
pub fn handed_over() -> std::ops::Range<i32> {
    /// `SD_LISTEN_FDS_START`.
    const FIRST: i32 = 3;
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let count = number("LISTEN_FDS").filter(|_| number("LISTEN_PID").is_none_or(|pid| pid == std::process::id()));
    FIRST..FIRST + count.and_then(|count| i32::try_from(count).ok()).unwrap_or(0).min(1024)
}

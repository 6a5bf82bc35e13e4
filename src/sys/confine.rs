//! Taking rights away from this process for good: every thread of it, also those that run already.
//!
//! Capabilities, Landlock domains and `no_new_privs` belong to a thread, and all threads share their
//! memory: one that kept its rights would lend them to whoever has taken over another. The kernel has
//! no call that changes all of them (Landlock's `TSYNC` came with Linux 7.0 and is for Landlock alone),
//! so it is done as C libraries do it for `setuid(2)`: a real-time signal makes each thread carry the
//! same calls out, and none goes unanswered.

#![expect(unsafe_code, reason = "a signal handler, and system calls without a safe wrapper")]

use std::collections::HashSet;
use std::ffi::{c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::limits;

/// What every thread gives up.
#[derive(Clone, Copy, Debug)]
pub struct Narrowing<'a> {
    /// Capabilities that stay where the thread has them, as a set of bits.
    pub keep: u64,
    /// A Landlock ruleset that holds from now on.
    pub ruleset: Option<BorrowedFd<'a>>,
}

/// A step that did not succeed in some thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused(u32);

impl Refused {
    pub const PRIVILEGES: Self = Self(1);
    pub const LANDLOCK: Self = Self(1 << 1);
    pub const CAPABILITIES: Self = Self(1 << 2);
    /// A thread did not answer, or the threads could not be listed.
    pub const THREADS: Self = Self(1 << 3);

    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What the handler carries out. One narrowing at a time: [`narrow_every_thread`] holds [`ONE`].
static RULESET: AtomicI32 = AtomicI32::new(-1);
static KEEP: AtomicU64 = AtomicU64::new(u64::MAX);
static ANSWERS: AtomicU32 = AtomicU32::new(0);
static REFUSED: AtomicU32 = AtomicU32::new(0);
static ONE: Mutex<()> = Mutex::new(());

/// The version of Landlock that the kernel speaks; `None` where it has none, or a filter hides it.
#[must_use]
pub fn landlock_version() -> Option<u32> {
    const VERSION: u32 = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel reads no memory.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0usize, VERSION) };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

/// The capabilities that the calling thread can use.
#[must_use]
pub fn effective_capabilities() -> u64 {
    rustix::thread::capabilities(None).map_or(0, |sets| sets.effective.bits())
}

/// Takes the rights away from the calling thread and from every other one of the process; those to
/// come inherit what is left. What is refused in one thread is tried in the others all the same.
#[must_use]
pub fn narrow_every_thread(narrowing: Narrowing<'_>) -> Refused {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    RULESET.store(narrowing.ruleset.map_or(-1, |fd| fd.as_raw_fd()), Ordering::SeqCst);
    KEEP.store(narrowing.keep, Ordering::SeqCst);
    REFUSED.store(0, Ordering::SeqCst);
    // The others first: their list and their answers need rights that this thread still has.
    let missed = signal_the_others().is_err();
    narrow();
    // The descriptor may soon mean another file.
    RULESET.store(-1, Ordering::SeqCst);
    Refused(REFUSED.load(Ordering::SeqCst) | if missed { Refused::THREADS.0 } else { 0 })
}

/// The calls, for the calling thread. Made of system calls and atomics alone, as a handler must be.
fn narrow() {
    let mut refused = 0;
    // SAFETY: changes this thread's own attribute.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        refused |= Refused::PRIVILEGES.0;
    }
    let ruleset = RULESET.load(Ordering::SeqCst);
    // SAFETY: takes two numbers.
    if ruleset >= 0 && unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) } != 0 {
        refused |= Refused::LANDLOCK.0;
    }
    if !drop_capabilities(KEEP.load(Ordering::SeqCst)) {
        refused |= Refused::CAPABILITIES.0;
    }
    REFUSED.fetch_or(refused, Ordering::SeqCst);
}

/// `struct __user_cap_header_struct` of `<linux/capability.h>`.
#[repr(C)]
struct Header {
    version: u32,
    thread: c_int,
}

/// `struct __user_cap_data_struct`; two of them hold 64 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Words {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// Drops all but `keep` from every set of the calling thread.
fn drop_capabilities(keep: u64) -> bool {
    // SAFETY: changes this thread's own set. EINVAL before Linux 4.3, which has no such set.
    let _ = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    // From the bounding set only with CAP_SETPCAP; without it `no_new_privs` bars what it bounds. The
    // kernel's last capability is followed by EINVAL.
    for capability in (0..64u64).filter(|bit| keep >> bit & 1 == 0) {
        // SAFETY: changes this thread's own set.
        let _ = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    let mut header = Header { version: VERSION_3, thread: 0 };
    let mut words = [Words::default(); 2];
    // SAFETY: the kernel writes the two words that version 3 has.
    if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) } != 0 {
        return false;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of 64 bits")]
    let halves = [keep as u32, (keep >> 32) as u32];
    for (words, keep) in words.iter_mut().zip(halves) {
        let left = words.permitted & keep;
        // What the thread could not use before it can't use after.
        *words = Words { effective: words.effective & left, permitted: left, inheritable: 0 };
    }
    // SAFETY: the kernel reads the two words that version 3 has.
    unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) == 0 }
}

/// Far from the first ones, which C libraries and debuggers take.
fn signal() -> c_int {
    libc::SIGRTMIN() + 7
}

extern "C" fn answer(_signal: c_int) {
    // SAFETY: this thread's own errno; the code that was interrupted may be about to read it.
    let errno = unsafe { *libc::__errno_location() };
    narrow();
    ANSWERS.fetch_add(1, Ordering::SeqCst);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Makes every other thread carry [`narrow`] out. One at a time, until the list of threads holds no
/// new one: threads that a narrowed one starts are narrow already, and go through it once more.
fn signal_the_others() -> io::Result<()> {
    // SAFETY: gives the number of this thread.
    let own = unsafe { libc::gettid() };
    let mut done = HashSet::from([own]);
    let mut handler = None;
    loop {
        let threads: Vec<c_int> = std::fs::read_dir("/proc/self/task")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|thread| !done.contains(thread))
            .collect();
        if threads.is_empty() {
            return handler.map_or(Ok(()), Handler::restore);
        }
        if handler.is_none() {
            handler = Some(Handler::install()?);
        }
        for thread in threads {
            // A thread that is late finds its handler: it stays from here on.
            signal_one(thread)?;
            done.insert(thread);
        }
    }
}

fn signal_one(thread: c_int) -> io::Result<()> {
    let before = ANSWERS.load(Ordering::SeqCst);
    let process = std::process::id();
    // SAFETY: takes three numbers; the handler is installed.
    if unsafe { libc::syscall(libc::SYS_tgkill, c_long::from(process), c_long::from(thread), c_long::from(signal())) }
        != 0
    {
        let error = io::Error::last_os_error();
        // It has ended meanwhile.
        return if error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(error) };
    }
    let until = Instant::now() + Duration::from_millis(limits::NARROWING_MS);
    while ANSWERS.load(Ordering::SeqCst) == before {
        if !std::path::Path::new("/proc/self/task").join(thread.to_string()).exists() {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}

/// The signal's handler while it is ours.
struct Handler(libc::sigaction);

impl Handler {
    fn install() -> io::Result<Self> {
        // SAFETY: all zeros is a valid value: no flags, an empty mask, the default handler.
        let (mut ours, mut before): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
        ours.sa_sigaction = answer as extern "C" fn(c_int) as libc::sighandler_t;
        ours.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        // SAFETY: the handler calls only what is safe in one; both structures outlive the call.
        if unsafe { libc::sigaction(signal(), &raw const ours, &raw mut before) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(before))
    }

    fn restore(self) -> io::Result<()> {
        // SAFETY: what the kernel gave is given back.
        let result = unsafe { libc::sigaction(signal(), &raw const self.0, std::ptr::null_mut()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

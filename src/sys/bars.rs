//! System calls that a worker never makes again: a seccomp filter over all threads.
//!
//! It stands for what capabilities are too coarse for. `CAP_SYS_ADMIN` has to stay where `trusted.*`
//! attributes are copied, and would allow mounts, other namespaces and much else with it. All that is
//! named here is refused with `EPERM`; the rest goes through, because a list of what is allowed breaks
//! with each C library. The kernel finds once and for each number that its answer depends on nothing
//! else (Linux 5.11), so a call that is allowed costs nothing.
//!
//! Operations inside a ring are no system calls: `ring.rs` restricts its own, and a ring can't mount,
//! trace or execute.

#![expect(unsafe_code, reason = "seccomp(2) has no safe wrapper")]

use std::io;

/// Refused whatever their arguments are.
const BARRED: &[libc::c_long] = &[
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    OPEN_TREE_ATTR,
    // Files by handle: past every path, and so past Landlock's hierarchies.
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    // Other programs and processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_kcmp,
    // New connections. What is open already goes on.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    libc::SYS_vhangup,
    libc::SYS_personality,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Keys of the user and of the system.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // Other processes' share of the machine, and where memory lies.
    libc::SYS_ioprio_set,
    libc::SYS_setpriority,
    libc::SYS_setrlimit,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_set_mempolicy,
    SET_MEMPOLICY_HOME_NODE,
];

/// Linux 6.15; the same number everywhere, as all calls since 424.
const OPEN_TREE_ATTR: libc::c_long = 467;

/// Linux 5.17.
const SET_MEMPOLICY_HOME_NODE: libc::c_long = 450;

#[cfg(target_arch = "x86_64")]
const BARRED_HERE: &[libc::c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    // What no program has called for decades. Others of their age have no code in the kernel any more.
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
];
#[cfg(not(target_arch = "x86_64"))]
const BARRED_HERE: &[libc::c_long] = &[];

/// `AUDIT_ARCH_*` of `<linux/audit.h>`; calls of another ABI have other numbers.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: Option<u32> = None;

/// Numbers from here on are those of the x32 ABI; no other call has so high a number.
const X32: u32 = 0x4000_0000;

/// Where `struct seccomp_data` holds the number, the ABI, and the low half of the first argument.
const NUMBER: u32 = 0;
const ABI: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Bars the calls for every thread of this process. With `ring` false, io_uring as well.
///
/// # Errors
/// `Unsupported` on a machine whose call numbers are not known here; `EINVAL` or `ENOSYS` where the
/// kernel has no filters; `EACCES` without `no_new_privs`; `ESRCH` where a thread has a filter of its
/// own that the others lack.
pub fn bar_calls(ring: bool) -> io::Result<()> {
    const SET_FILTER: u32 = 1;
    const EVERY_THREAD: u32 = 1;
    /// No slower branches for speculation's sake: nothing foreign runs here (Linux 4.17).
    const SPECULATE: u32 = 1 << 2;
    let architecture = ARCHITECTURE.ok_or(io::ErrorKind::Unsupported)?;
    let mut filter = filter(architecture, ring);
    let length = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    let flags = EVERY_THREAD | SPECULATE;
    // SAFETY: the kernel copies the program and its instructions, which outlive the call.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, SET_FILTER, flags, &raw const program) };
    match answer {
        0 => Ok(()),
        // The number of a thread that could not follow.
        1.. => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One instruction (`<linux/bpf_common.h>`); `yes` and `no` are how many to skip.
fn instruction(code: u32, yes: usize, no: usize, value: u32) -> libc::sock_filter {
    let near = |skip: usize| u8::try_from(skip).expect("the filter is shorter than a jump");
    libc::sock_filter { code: u16::try_from(code).expect("16 bits"), jt: near(yes), jf: near(no), k: value }
}

/// The filter: the ABI, the numbers, and of `clone` its flags.
fn filter(architecture: u32, ring: bool) -> Vec<libc::sock_filter> {
    let load = |at| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let equal = |to, yes, no| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, to);
    let answer = |what| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, what);
    let error = |number: i32| answer(libc::SECCOMP_RET_ERRNO | number.unsigned_abs());
    let number = |call: libc::c_long| u32::try_from(call).expect("call numbers are small");
    let rings = [libc::SYS_io_uring_setup, libc::SYS_io_uring_register];
    let rings = if ring { &[][..] } else { &rings };
    let barred: Vec<u32> = [BARRED, BARRED_HERE, rings].concat().into_iter().map(number).collect();
    // After the numbers: allow, refuse, no such call, and then the flags of clone.
    let mut filter = vec![load(ABI), equal(architecture, 1, 0), error(libc::EPERM), load(NUMBER)];
    let rest = barred.len() + 2;
    filter.push(instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, rest + 1, 0, X32));
    for (place, call) in barred.iter().enumerate() {
        filter.push(equal(*call, rest - place, 0));
    }
    filter.push(equal(number(libc::SYS_clone3), 3, 0));
    filter.push(equal(number(libc::SYS_clone), 3, 0));
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    filter.push(error(libc::EPERM));
    // Its flags lie in memory, which a filter can't see; C libraries go on with `clone`.
    filter.push(error(libc::ENOSYS));
    let any_of =
        |flags: i32, yes, no| instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, yes, no, flags.cast_unsigned());
    // A thread has no namespaces of its own, and processes are not begun any more.
    filter.push(load(FIRST_ARGUMENT));
    filter.push(any_of(NAMESPACES, 2, 0));
    filter.push(any_of(libc::CLONE_THREAD, 0, 1));
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    filter.push(error(libc::EPERM));
    filter
}

//! Becoming another user.

#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::ffi::CStr;
use std::io;

/// User and primary group by the user's name, from the system's user database; `None` when there is no such user.
///
/// # Errors
/// What the database says when it can't be read.
pub fn user_ids(name: &CStr) -> io::Result<Option<(u32, u32)>> {
    super::attributes::lookup(|buffer, length| {
        let mut record = std::mem::MaybeUninit::<libc::passwd>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: the record and `length` writable bytes at `buffer` live through the call.
        let error = unsafe { libc::getpwnam_r(name.as_ptr(), record.as_mut_ptr(), buffer, length, &raw mut found) };
        // SAFETY: a non-null `found` points at the record, which the call has filled.
        (error, (!found.is_null()).then(|| unsafe { ((*found).pw_uid, (*found).pw_gid) }))
    })
}

/// Makes the process that of another user, in all three ids and with no group but the one given. Root loses its
/// capabilities with it (capabilities(7), "effect of user ID changes").
///
/// # Errors
/// `EPERM` for who is not root. What was changed before the step that failed stays so.
pub fn become_user(user: u32, group: u32) -> io::Result<()> {
    let done = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // The groups first: who is not root any more may not change them.
    // SAFETY: reads one number that lives through the call.
    done(unsafe { libc::setgroups(1, &raw const group) })?;
    // SAFETY: takes numbers; the C library makes every thread follow.
    done(unsafe { libc::setresgid(group, group, group) })?;
    // SAFETY: as above.
    done(unsafe { libc::setresuid(user, user, user) })
}

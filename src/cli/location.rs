//! SRC and DST: which strings are directories of this machine, and which are something else.
//!
//! A string like `10.0.0.5:/shares/x` is a valid relative path and a common name of a share. To
//! take it as a path would silently create a directory of that name, so only absolute and dotted
//! paths are paths, and everything that looks like a share is refused with the way around it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use bstr::ByteSlice;

use crate::error::Error;
use crate::worker::escape;

/// Takes an argument as a path of this machine. `role` is `SRC`, `DST` or `DIR`, for the message.
///
/// # Errors
/// [`Error::Usage`] for a share, a remote of rsync's form, an empty or an undotted relative path.
pub fn local(argument: &OsStr, role: &str) -> Result<PathBuf, Error> {
    let bytes = argument.as_bytes();
    let shown = || escape(bytes);
    if bytes.is_empty() {
        return Err(Error::Usage {
            what: format!("{role} is empty"),
            remedy: "name a directory, absolute or beginning with ./",
        });
    }
    if bytes == b"-" {
        return Err(Error::Usage {
            what: format!("{role} is -, and a tree can't come from or go to a stream"),
            remedy: "name a directory, absolute or beginning with ./",
        });
    }
    if dotted(bytes) || bytes.starts_with(b"/") {
        return Ok(PathBuf::from(argument));
    }
    if is_url(bytes) || bytes.starts_with(b"\\\\") || is_remote(bytes) {
        return Err(Error::Usage {
            what: format!("{role} {} is a share: this version of copyd copies between mounted directories", shown()),
            remedy: "mount it first (mount -t nfs, cifs, ceph …) and name the mounted directory; \
                     a local path of that name is written ./name",
        });
    }
    Err(Error::Usage {
        what: format!("{role} {} is neither absolute nor begins with ./ or ../", shown()),
        remedy: "write ./ before it if it is a directory here",
    })
}

fn dotted(bytes: &[u8]) -> bool {
    matches!(bytes, b"." | b"..") || bytes.starts_with(b"./") || bytes.starts_with(b"../")
}

/// `scheme://…`.
fn is_url(bytes: &[u8]) -> bool {
    bytes.find("://").is_some_and(|end| {
        end > 0 && bytes[..end].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    })
}

/// `host:path`, `user@host:/path`, `[::1]:/path`, `host::module`: a colon before the first slash.
fn is_remote(bytes: &[u8]) -> bool {
    let first = bytes.find_byte(b'/').map_or(bytes, |slash| &bytes[..slash]);
    first.contains(&b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_and_dotted_paths_are_taken_as_they_are() {
        for path in ["/", "//srv/x", "/a:b/c", "/srv/data/", ".", "..", "./x", "../x", "./nfs://a", "./host:path", "./"]
        {
            assert_eq!(local(OsStr::new(path), "SRC").unwrap().as_os_str(), path);
        }
    }

    #[test]
    fn a_path_that_is_not_utf8_is_taken_as_it_is() {
        let path = OsStr::from_bytes(b"/srv/\xff\xfe");
        assert_eq!(local(path, "SRC").unwrap().as_os_str(), path);
    }

    #[test]
    fn shares_are_refused_with_the_advice_to_mount_them() {
        for share in [
            "nfs://host/export?vers=4.2",
            "smb://host/share",
            "cephfs://x",
            "rsync://host/module",
            "10.0.0.5:/shares/x",
            "[fd00::5]:/shares/x",
            "host:relative",
            "user@host:/x",
            "host::module/x",
            "\\\\10.0.0.5\\share",
        ] {
            let error = local(OsStr::new(share), "SRC").unwrap_err();
            assert!(matches!(&error, Error::Usage { what, .. } if what.contains("is a share")), "{share}: {error}");
            assert!(error.remedy().contains("mount it first"));
        }
    }

    #[test]
    fn bare_relative_paths_are_refused_with_the_dotted_form() {
        for path in ["x", "x/y", "~user", ".hidden", "..x", "a/b:c"] {
            let error = local(OsStr::new(path), "DST").unwrap_err();
            assert!(error.remedy().contains("./"), "{path}");
            assert!(error.to_string().contains("neither absolute"), "{path}: {error}");
        }
    }

    #[test]
    fn an_empty_path_and_a_dash_are_refused() {
        assert!(local(OsStr::new(""), "SRC").is_err());
        assert!(local(OsStr::new("-"), "SRC").is_err());
    }
}

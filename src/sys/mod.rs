//! Every unsafe block of copyd, and the system calls that need one word more than `rustix` says.

mod at;
mod attributes;
mod bars;
mod buffers;
mod confine;
mod file_system;
mod inherited;
mod inode_flags;
mod isolate;
mod memory;
mod peer;
mod ring;
mod stat;
mod user;
mod view;
mod xattr;

pub use at::{
    Extent, ReadMode, create, hold_root, next_extent, open_beneath, open_directory, open_read, open_root, open_write,
    sync_file_system,
};
pub use attributes::{
    Answer, EntryRef, available_bytes, file_system_magic, group_id, sees_trusted, set_mode, set_owner, set_times,
    user_id,
};
pub use bars::bar_calls;
pub use buffers::Buffers;
pub use confine::{Narrowing, Refused, effective_capabilities, landlock_version, narrow_every_thread};
pub use file_system::file_system_uuid;
pub use inherited::take_inherited;
pub use inode_flags::{
    ExtendedFlags, get_extended_flags, get_extended_flags_at, get_flags, set_extended_flags, set_extended_flags_at,
    set_flags,
};
pub use isolate::{
    Namespace, clear_environment, close_inherited, enter_network, forbid_core_files, harden, leave, leave_groups,
    network_named, nfs_volumes,
};
pub use memory::{Memory, keep_pages_small};
pub use peer::peer_groups;
pub use ring::{Ring, Transfer, in_flight};
pub use stat::{Kind, Stat, Time, is_file, stat_at, stat_fd};
pub use user::{become_user, user_ids};
pub use view::{Access, Place, show_only};
pub use xattr::{get_xattr, list_xattrs, remove_xattr, set_xattr};

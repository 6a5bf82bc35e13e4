//! Answers the kernel's calls: asks the [`Plan`] first, then passes them on to the backing
//! [`Tree`]. Nothing is cached by the kernel but the data of open files, so that each look at an
//! entry is a call that a plan can count.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{AtFlags, FallocateFlags, Mode, SeekFrom};

use super::plan::{Call, Fault, Kind, Plan};
use super::tree::{Change, Handle, Tree};

/// The kernel asks again each time.
const TTL: Duration = Duration::ZERO;

/// The file system of a rig.
pub struct Faulty {
    pub plan: Arc<Plan>,
    pub tree: Arc<Tree>,
}

/// An answer that can also be a refusal.
trait Answer: Send + 'static {
    fn refuse(self, errno: Errno);
}

macro_rules! answers {
    ($($reply:ty),+) => {
        $(impl Answer for $reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        })+
    };
}
answers!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyEmpty,
    ReplyEntry,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

fn call(kind: Kind, inode: INodeNo) -> Call<'static> {
    Call { kind, nth: 0, inode: inode.0, name: b"", offset: 0, wanted: 0, data: b"" }
}

fn named(kind: Kind, parent: INodeNo, name: &OsStr) -> Call<'_> {
    Call { name: name.as_bytes(), ..call(kind, parent) }
}

impl Faulty {
    /// Asks the plan, does the work, answers. Work and answer own all they need, because a call that
    /// hangs is carried out later, on another thread.
    fn serve<R: Answer, T>(
        &self,
        call: Call<'_>,
        reply: R,
        work: impl FnOnce(&Tree, Option<Fault>) -> io::Result<T> + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
    ) {
        let tree = Arc::clone(&self.tree);
        let carry_out = move |fault, reply: R| match (work(&tree, fault), fault) {
            (Ok(_), Some(Fault::FailsDone(errno))) => reply.refuse(Errno::from_i32(errno.raw_os_error())),
            (Ok(done), _) => answer(reply, done),
            (Err(e), _) => reply.refuse(e.into()),
        };
        match self.plan.judge(call) {
            Some(Fault::Fails(errno)) => reply.refuse(Errno::from_i32(errno.raw_os_error())),
            Some(Fault::Hangs) => self.plan.hold(Box::new(move || carry_out(None, reply))),
            fault => carry_out(fault, reply),
        }
    }

    fn entry(
        &self,
        call: Call<'_>,
        reply: ReplyEntry,
        work: impl FnOnce(&Tree) -> io::Result<FileAttr> + Send + 'static,
    ) {
        let answer = |reply: ReplyEntry, attributes| reply.entry(&TTL, &attributes, Generation(0));
        self.serve(call, reply, move |tree, _| work(tree), answer);
    }

    fn empty(&self, call: Call<'_>, reply: ReplyEmpty, work: impl FnOnce(&Tree) -> io::Result<()> + Send + 'static) {
        self.serve(call, reply, move |tree, _| work(tree), |reply, ()| reply.ok());
    }
}

/// Stores what is to be written, or a lie, and says how many bytes it claims to have stored.
fn store(handle: &Handle, offset: u64, data: &mut [u8], fault: Option<Fault>) -> io::Result<u32> {
    let file = std::fs::File::from(handle.fd.try_clone()?);
    let mut claimed = data.len();
    match fault {
        Some(Fault::Short(most)) => {
            claimed = claimed.min(most);
            file.write_all_at(&data[..claimed], offset)?;
        }
        Some(Fault::Flips(at)) => {
            let at = at % claimed.max(1);
            data[at] ^= 0x10;
            file.write_all_at(data, offset)?;
        }
        Some(Fault::Loses) => {
            // The size grows all the same, as it does where only the data is lost.
            let end = offset + claimed as u64;
            if file.metadata()?.len() < end {
                file.set_len(end)?;
            }
        }
        Some(Fault::Misplaces(by)) => file.write_all_at(data, offset + by)?,
        _ => file.write_all_at(data, offset)?,
    }
    Ok(u32::try_from(claimed).expect("the kernel writes at most a MiB at once"))
}

/// Reads up to the end of the file or of the buffer.
fn load(handle: &Handle, offset: u64, most: usize) -> io::Result<Vec<u8>> {
    let file = std::fs::File::from(handle.fd.try_clone()?);
    let (mut data, mut len) = (vec![0; most], 0);
    while len < most {
        match file.read_at(&mut data[len..], offset + len as u64)? {
            0 => break,
            read => len += read,
        }
    }
    data.truncate(len);
    Ok(data)
}

/// A value as getxattr and listxattr ask for it: its length first, then its bytes.
fn value_asked(reply: ReplyXattr, value: &[u8], room: u32) {
    let len = u32::try_from(value.len()).expect("an xattr has at most 64 KiB");
    match room {
        0 => reply.size(len),
        room if room < len => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

impl Filesystem for Faulty {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let owned = name.to_owned();
        let work = move |tree: &Tree, fault| match fault {
            Some(Fault::Becomes(inode)) => tree.look_again(inode),
            _ => tree.look_up(parent.0, &owned),
        };
        self.serve(named(Kind::Lookup, parent, name), reply, work, |reply, attributes| {
            reply.entry(&TTL, &attributes, Generation(0));
        });
    }

    fn forget(&self, _: &Request, inode: INodeNo, times: u64) {
        self.tree.forget(inode.0, times);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let work = move |tree: &Tree, _| tree.attributes(inode.0);
        self.serve(call(Kind::Getattr, inode), reply, work, |reply, attributes| reply.attr(&TTL, &attributes));
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change { mode, uid, gid, size, atime, mtime };
        let work = move |tree: &Tree, _| tree.change(inode.0, handle.map(|handle| handle.0), &change);
        self.serve(call(Kind::Setattr, inode), reply, work, |reply, attributes| reply.attr(&TTL, &attributes));
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        let work = move |tree: &Tree, _| tree.read_link(inode.0);
        self.serve(call(Kind::Readlink, inode), reply, work, |reply, target: Vec<u8>| reply.data(&target));
    }

    fn mknod(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, device: u32, reply: ReplyEntry) {
        let owned = name.to_owned();
        self.entry(named(Kind::Mknod, parent, name), reply, move |tree| {
            let (kind, mode) = (rustix::fs::FileType::from_raw_mode(mode), Mode::from_raw_mode(mode & 0o7777));
            rustix::fs::mknodat(&*tree.node(parent.0)?, &owned, kind, mode, device.into())?;
            tree.look_up(parent.0, &owned)
        });
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let owned = name.to_owned();
        self.entry(named(Kind::Mkdir, parent, name), reply, move |tree| {
            rustix::fs::mkdirat(&*tree.node(parent.0)?, &owned, Mode::from_raw_mode(mode & 0o7777))?;
            tree.look_up(parent.0, &owned)
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let owned = name.to_owned();
        self.empty(named(Kind::Unlink, parent, name), reply, move |tree| {
            Ok(rustix::fs::unlinkat(&*tree.node(parent.0)?, &owned, AtFlags::empty())?)
        });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let owned = name.to_owned();
        self.empty(named(Kind::Rmdir, parent, name), reply, move |tree| {
            Ok(rustix::fs::unlinkat(&*tree.node(parent.0)?, &owned, AtFlags::REMOVEDIR)?)
        });
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (owned, target) = (name.to_owned(), target.to_owned());
        self.entry(named(Kind::Symlink, parent, name), reply, move |tree| {
            rustix::fs::symlinkat(&target, &*tree.node(parent.0)?, &owned)?;
            tree.look_up(parent.0, &owned)
        });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (old, new): (OsString, OsString) = (name.to_owned(), new_name.to_owned());
        self.empty(named(Kind::Rename, new_parent, new_name), reply, move |tree| {
            let (from, to) = (tree.node(parent.0)?, tree.node(new_parent.0)?);
            let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
            Ok(rustix::fs::renameat_with(&*from, &old, &*to, &new, flags)?)
        });
    }

    fn link(&self, _: &Request, inode: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let owned = name.to_owned();
        self.entry(named(Kind::Link, parent, name), reply, move |tree| tree.link(inode.0, parent.0, &owned));
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let work = move |tree: &Tree, _| tree.open_node(inode.0, flags.0);
        self.serve(call(Kind::Open, inode), reply, work, |reply, number| {
            reply.opened(FileHandle(number), FopenFlags::empty());
        });
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let work = move |tree: &Tree, fault| {
            let most = if let Some(Fault::Short(most)) = fault { most.min(size as usize) } else { size as usize };
            load(&*tree.handle(handle.0)?, offset, most)
        };
        let call = Call { offset, wanted: size.into(), ..call(Kind::Read, inode) };
        self.serve(call, reply, work, |reply, data: Vec<u8>| reply.data(&data));
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut owned = data.to_vec();
        let work = move |tree: &Tree, fault| store(&*tree.handle(handle.0)?, offset, &mut owned, fault);
        let call = Call { offset, data, ..call(Kind::Write, inode) };
        self.serve(call, reply, work, ReplyWrite::written);
    }

    fn flush(&self, _: &Request, inode: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.empty(call(Kind::Flush, inode), reply, |_| Ok(()));
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.tree.release(handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        self.empty(call(Kind::Fsync, inode), reply, move |tree| Ok(rustix::fs::fsync(&tree.handle(handle.0)?.fd)?));
    }

    fn opendir(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let work = move |tree: &Tree, _| tree.open_node(inode.0, flags.0);
        self.serve(call(Kind::Opendir, inode), reply, work, |reply, number| {
            reply.opened(FileHandle(number), FopenFlags::empty());
        });
    }

    fn readdir(&self, _: &Request, inode: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        let work = move |tree: &Tree, fault| {
            let handle = tree.handle(handle.0)?;
            if offset == 0 {
                tree.list(&handle)?;
            }
            if let Some(Fault::Lists(name)) = fault
                && offset == 0
            {
                handle.add(name);
            }
            Ok((handle, fault == Some(Fault::NeverEnds)))
        };
        self.serve(call(Kind::Readdir, inode), reply, work, move |mut reply, (handle, without_end)| {
            if without_end {
                let made_up = |at: u64| OsString::from(format!("made-up-{at:016x}"));
                let mut at = offset;
                while !reply.add(INodeNo(at + 2), at + 1, fuser::FileType::RegularFile, made_up(at)) {
                    at += 1;
                }
                return reply.ok();
            }
            let names = handle.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let rest = names.iter().enumerate().skip(usize::try_from(offset).unwrap_or(usize::MAX));
            for (at, entry) in rest {
                if reply.add(INodeNo(entry.inode), at as u64 + 1, entry.kind, OsStr::from_bytes(&entry.name)) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.tree.release(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        self.empty(call(Kind::Fsyncdir, inode), reply, move |tree| Ok(rustix::fs::fsync(&tree.handle(handle.0)?.fd)?));
    }

    fn statfs(&self, _: &Request, inode: INodeNo, reply: ReplyStatfs) {
        let work = move |tree: &Tree, _| Ok(rustix::fs::fstatvfs(&*tree.node(inode.0)?)?);
        self.serve(call(Kind::Statfs, inode), reply, work, |reply, found| {
            let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
            reply.statfs(
                found.f_blocks,
                found.f_bfree,
                found.f_bavail,
                found.f_files,
                found.f_ffree,
                small(found.f_bsize),
                small(found.f_namemax),
                small(found.f_frsize),
            );
        });
    }

    fn setxattr(&self, _: &Request, inode: INodeNo, name: &OsStr, value: &[u8], flags: i32, _: u32, reply: ReplyEmpty) {
        let (owned, value) = (name.to_owned(), value.to_vec());
        self.empty(named(Kind::Setxattr, inode, name), reply, move |tree| {
            tree.set_attribute(inode.0, &owned, &value, flags)
        });
    }

    fn getxattr(&self, _: &Request, inode: INodeNo, name: &OsStr, room: u32, reply: ReplyXattr) {
        let owned = name.to_owned();
        let work = move |tree: &Tree, _| tree.attribute(inode.0, &owned);
        let answer = move |reply, value: Vec<u8>| value_asked(reply, &value, room);
        self.serve(named(Kind::Getxattr, inode, name), reply, work, answer);
    }

    fn listxattr(&self, _: &Request, inode: INodeNo, room: u32, reply: ReplyXattr) {
        let work = move |tree: &Tree, _| tree.attribute_names(inode.0);
        let answer = move |reply, names: Vec<u8>| value_asked(reply, &names, room);
        self.serve(call(Kind::Listxattr, inode), reply, work, answer);
    }

    fn removexattr(&self, _: &Request, inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let owned = name.to_owned();
        self.empty(named(Kind::Removexattr, inode, name), reply, move |tree| tree.remove_attribute(inode.0, &owned));
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, flags: i32, reply: ReplyCreate) {
        let owned = name.to_owned();
        let work = move |tree: &Tree, _| tree.create(parent.0, &owned, mode & 0o7777, flags);
        self.serve(named(Kind::Create, parent, name), reply, work, |reply, (attributes, number)| {
            reply.created(&TTL, &attributes, Generation(0), FileHandle(number), FopenFlags::empty());
        });
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.empty(call(Kind::Fallocate, inode), reply, move |tree| {
            let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
            Ok(rustix::fs::fallocate(&tree.handle(handle.0)?.fd, mode, offset, length)?)
        });
    }

    fn lseek(&self, _: &Request, inode: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        // The kernel asks only for data and holes; it answers the others itself (lseek(2)).
        const SEEK_DATA: i32 = 3;
        let work = move |tree: &Tree, fault| {
            if let Some(Fault::Claims(offset)) = fault {
                return Ok(offset);
            }
            let from = offset.cast_unsigned();
            let to = if whence == SEEK_DATA { SeekFrom::Data(from) } else { SeekFrom::Hole(from) };
            Ok(rustix::fs::seek(&tree.handle(handle.0)?.fd, to)?)
        };
        self.serve(call(Kind::Lseek, inode), reply, work, |reply, found| reply.offset(found.cast_signed()));
    }
}

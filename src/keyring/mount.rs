//! Where a file's mode says nothing about who can read it.

use std::fs::File;

/// Linux's number of the file system that lies in memory (statfs(2)).
#[cfg(target_os = "linux")]
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// Whether this is how Kubernetes mounts a Secret into a container: read-only, in memory.
///
/// Such a file belongs to root and is readable for all, as there is nobody else in the container; a stricter mode would
/// lock out a process that is not root, unless its whole pod were given a group.
#[cfg(target_os = "linux")]
pub fn is_private(file: &File) -> bool {
    use rustix::fs::{StatVfsMountFlags, fstatfs, fstatvfs};
    let read_only = fstatvfs(file).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::RDONLY));
    read_only && fstatfs(file).is_ok_and(|kind| kind.f_type == TMPFS)
}

#[cfg(not(target_os = "linux"))]
pub fn is_private(_: &File) -> bool {
    false
}

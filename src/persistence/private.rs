//! Files and directories that nobody but their owner has rights to, whatever the process's umask.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The rights of group and others, and of these those to write.
const FOR_OTHERS: u32 = 0o077;
const WRITABLE_FOR_OTHERS: u32 = 0o022;

/// How a file is opened that is its owner's alone, if this makes it.
pub(super) fn file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// How a directory is made that is its owner's alone, with those above it that are missing.
pub(super) fn directory() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
}

/// Takes from everybody else what rights they have to a file or directory of ours.
pub(super) fn keep(opened: &File, path: &Path) {
    let Some(mode) = mode(opened) else { return };
    if mode & FOR_OTHERS == 0 {
        return;
    }
    if let Err(error) = opened.set_permissions(Permissions::from_mode(mode & !FOR_OTHERS)) {
        tracing::warn!(
            path = %path.display(), mode = octal(mode), %error,
            "other users have rights to a part of the data directory, and they cannot be taken from them"
        );
    }
}

/// Tells of a directory that was there before, whose rights are its owner's affair.
pub(super) fn warn_if_writable(opened: &File, path: &Path) {
    if let Some(mode) = mode(opened).filter(|mode| mode & WRITABLE_FOR_OTHERS != 0) {
        tracing::warn!(
            directory = %path.display(), mode = octal(mode),
            "other users can write to the data directory, so that they can delete, move or replace what is in it: make \
             it the node's own (chmod 700), or name another with --data-dir"
        );
    }
}

fn mode(opened: &File) -> Option<u32> {
    opened.metadata().ok().map(|metadata| metadata.permissions().mode())
}

fn octal(mode: u32) -> String {
    format!("{:04o}", mode & 0o7777)
}

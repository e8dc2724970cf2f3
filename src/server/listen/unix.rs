//! Unix sockets: a file that only its owner may connect to, made when the listener is and taken away with it.
//!
//! The file of a node that ended without taking it away is replaced: nobody answers there. One at which somebody listens
//! is not, nor is anything that is no socket. Two nodes that start at the same path in the same moment may both find the
//! old file; the one that comes later replaces what it looked at, and nothing else.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;

use super::{BACKLOG, Bound, Incoming, ListenError, Listener};
use crate::endpoint::{Endpoint, PeerAddress, PeerIdentity, PeerInfo};

/// Its owner may read and write, and connect.
const MODE: u32 = 0o600;

/// The connections of a Unix socket.
#[derive(Debug)]
pub(super) struct UnixIncoming {
    listener: UnixListener,
    _file: SocketFile,
}

/// The file of a socket that listens: taken away when it is dropped, unless another has come in its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: Option<FileIdentity>,
}

/// What tells one file from another of the same name: device and inode.
type FileIdentity = (u64, u64);

impl UnixIncoming {
    pub(super) async fn accept(&mut self) -> io::Result<(UnixStream, PeerInfo)> {
        let (stream, _) = self.listener.accept().await?;
        let identity = stream.peer_cred().ok();
        let identity = identity.map(|peer| PeerIdentity::Process { user: peer.uid(), process: peer.pid() });
        Ok((stream, PeerInfo { address: PeerAddress::Unix, identity }))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity_of(&self.path).ok() == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at a path, whose file is made.
pub(super) fn bind(path: &Path, runtime: &Handle) -> Result<Bound, ListenError> {
    let address = || Endpoint::Unix(path.to_owned());
    make_way(path)?;
    let listen = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Linux makes the file with the mode of its socket: nobody else can connect before it is set below. Elsewhere it has
        // no effect.
        let _ = rustix::fs::fchmod(&socket, Mode::from_raw_mode(MODE));
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile { path: path.to_owned(), identity: identity_of(path).ok() };
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
        socket.set_nonblocking(true)?;
        socket.listen(BACKLOG)?;
        // The listener belongs to the runtime in whose context it is made.
        let _context = runtime.enter();
        let listener = UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into())?;
        Ok(UnixIncoming { listener, _file: file })
    };
    match listen() {
        Ok(incoming) => Ok(Bound { address: address(), incoming: Incoming(Listener::Unix(incoming)) }),
        Err(source) => Err(refusal(path, source)),
    }
}

/// Removes the file of a socket at which nobody listens.
fn make_way(path: &Path) -> Result<(), ListenError> {
    let address = || Endpoint::Unix(path.to_owned());
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|source| refusal(path, source))?,
    };
    if !found.file_type().is_socket() {
        return Err(ListenError::NoSocket { address: address() });
    }
    match connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        // It was taken away just now.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        // Accepted, or it would be in time.
        Ok(_) => return Err(ListenError::InUse { address: address() }),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            return Err(ListenError::InUse { address: address() });
        }
        Err(source) => return Err(refusal(path, source)),
    }
    let is_same = identity_of(path).ok() == Some((found.dev(), found.ino()));
    if !is_same {
        return Err(ListenError::InUse { address: address() });
    }
    fs::remove_file(path).map_err(|source| refusal(path, source))?;
    tracing::info!(path = %path.display(), "replacing the socket of a process that has ended");
    Ok(())
}

fn connect(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Or it would wait for a listener that accepts nothing.
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

fn identity_of(path: &Path) -> io::Result<FileIdentity> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

fn refusal(path: &Path, source: io::Error) -> ListenError {
    let address = Endpoint::Unix(path.to_owned());
    match source.kind() {
        ErrorKind::AddrInUse => ListenError::InUse { address },
        ErrorKind::NotFound | ErrorKind::NotADirectory => ListenError::NoDirectory { address },
        ErrorKind::PermissionDenied => ListenError::ForbiddenFile { address },
        _ => ListenError::Io { address, source },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as OtherListener;

    use super::*;

    fn bind_at(path: &Path) -> Result<Bound, ListenError> {
        bind(path, &Handle::current())
    }

    #[tokio::test]
    async fn the_file_is_its_owners_alone_and_goes_with_the_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("larder.sock");
        let mut bound = bind_at(&path).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, MODE);
        let Listener::Unix(incoming) = &mut bound.incoming.0 else { panic!("a Unix socket was asked for") };
        let (client, accepted) = tokio::join!(UnixStream::connect(&path), incoming.accept());
        client.unwrap();
        let (_, peer) = accepted.unwrap();
        let this = PeerIdentity::Process {
            user: rustix::process::getuid().as_raw(),
            process: i32::try_from(std::process::id()).ok(),
        };
        assert_eq!(peer, PeerInfo { address: PeerAddress::Unix, identity: Some(this) });
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_nobody_listens_at_is_replaced_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("larder.sock");
        // As a process leaves it that was killed.
        drop(OtherListener::bind(&path).unwrap());
        let first = bind_at(&path).unwrap();
        let second = bind_at(&path).unwrap_err();
        assert!(matches!(&second, ListenError::InUse { .. }), "{second}");

        // Somebody has put another in its place: that one stays.
        fs::remove_file(&path).unwrap();
        let other = OtherListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(other);
        fs::remove_file(&path).unwrap();

        fs::write(&path, "precious").unwrap();
        let error = bind_at(&path).unwrap_err();
        assert!(matches!(&error, ListenError::NoSocket { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let linked = directory.path().join("link.sock");
        std::os::unix::fs::symlink(&path, &linked).unwrap();
        assert!(matches!(bind_at(&linked).unwrap_err(), ListenError::NoSocket { .. }));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_listener_that_accepts_nothing_counts_as_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("larder.sock");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let mut waiting = Vec::new();
        while let Ok(held) = connect(&path) {
            waiting.push(held);
        }
        let error = bind_at(&path).unwrap_err();
        assert!(matches!(&error, ListenError::InUse { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("none/larder.sock");
        let error = bind_at(&path).unwrap_err().to_string();
        let parent = path.parent().unwrap().display().to_string();
        assert!(error.contains(&parent) && error.contains("create it"), "{error}");
    }
}

//! Who is at the other end of a Unix socket, as the kernel knows it (`SO_PEERCRED`).

use std::io;

use super::UnixSocket;

/// Who has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Whoever listens there.
    Anyone,
    /// A process of this user or of root.
    SameUser,
    /// This process, or one that descends from it or is of its process group.
    Tree(u32),
}

impl Peer {
    /// Compares with the process that listens at the other end of `socket`.
    pub(crate) fn check(self, socket: &UnixSocket) -> io::Result<()> {
        if self == Self::Anyone {
            return Ok(());
        }
        let peer = socket.peer();
        let own = rustix::process::geteuid().as_raw();
        if peer.uid() != own && peer.uid() != 0 && own != 0 {
            return Err(io::Error::other(format!("the socket belongs to a process of user {}", peer.uid())));
        }
        // 0 stands for a process in another name space.
        let Some(pid) = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0) else {
            return Ok(());
        };
        let expected = match self {
            Self::Anyone | Self::SameUser => return Ok(()),
            Self::Tree(root) if is_of_tree(pid, root) => return Ok(()),
            Self::Tree(root) => root,
        };
        Err(io::Error::other(format!(
            "process {pid} listens on the socket, not the plugin, which is {expected}"
        )))
    }
}

/// Whether a process is `root`, or descends from it, or is in the group that it leads.
fn is_of_tree(pid: u32, root: u32) -> bool {
    // Deeper than any tree of processes; a loop cannot be, but /proc is read while it changes.
    const DEPTH: usize = 64;
    let in_group = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).is_some_and(|pid| {
        rustix::process::getpgid(Some(pid)).is_ok_and(|group| group.as_raw_pid().cast_unsigned() == root)
    });
    in_group || std::iter::successors(Some(pid), |pid| parent(*pid)).take(DEPTH).any(|pid| pid == root)
}

/// The parent, from the fourth field of `/proc/PID/stat`, which comes after a name that may hold anything.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok().filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_process_at_the_other_end_is_known() {
        let (near, _far) = tokio::net::UnixStream::pair().unwrap();
        let near = UnixSocket::new(near).unwrap();
        let own = std::process::id();
        let parent = parent(own).unwrap();
        for (peer, accepted) in [
            (Peer::Anyone, true),
            (Peer::SameUser, true),
            (Peer::Tree(own), true),
            (Peer::Tree(parent), true),
            (Peer::Tree(u32::MAX), false),
        ] {
            assert_eq!(peer.check(&near).is_ok(), accepted, "{peer:?}");
        }
    }
}

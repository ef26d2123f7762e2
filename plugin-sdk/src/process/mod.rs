//! From a command to an exit status: what is true of any child process, whatever it says on its pipes.

mod checksum;
mod child;
mod elf;
mod exec;
mod exit;
mod foreign;
mod lines;
mod marked;
mod parent_death;
mod program;

pub use checksum::{Checksum, ChecksumError, ChecksumProblem};
pub(crate) use child::Process;
pub use child::kill_all;
pub(crate) use exec::without_shell;
pub use exit::{Exit, ExitKind, StopStep};
pub(crate) use foreign::ForeignProcess;
pub(crate) use lines::{Lines, Piece, PieceKind};
pub(crate) use marked::end_marked;
pub(crate) use parent_death::kill_with_this_process;
pub(crate) use program::examine;
pub use program::{Machine, ProgramProblem};

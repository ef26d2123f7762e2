//! Ctrl-C and SIGTERM: the measurement fails at its next step, so that all that was started is ended and removed as after
//! any failure. A second one ends this program at once, and leaves things behind.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};

static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Begins to listen for signals.
pub(crate) fn listen() -> io::Result<()> {
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        // In this order: the first one finds the flag unset.
        register_conditional_shutdown(signal, 128 + signal, Arc::clone(&ASKED))?;
        register(signal, Arc::clone(&ASKED))?;
    }
    Ok(())
}

/// Fails once there was a signal. To be called wherever this program may be for longer than a moment.
pub(crate) fn check() -> io::Result<()> {
    if ASKED.load(Ordering::Relaxed) { Err(io::Error::other("stopped by a signal")) } else { Ok(()) }
}

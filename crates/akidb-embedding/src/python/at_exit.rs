//! The end of a process that did not close its services.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;

/// How long the end may take; all models together give up on their forward passes after 4 s.
const CLOSE_WITHIN: Duration = Duration::from_millis(4500);

/// Close all engines when the process ends, before the destructors of what is loaded by now. MLX's abort the process
/// when they run beside a forward pass, and Python's own hook does not run, since nobody finalises Python.
///
/// Called again whenever more may have been loaded.
#[allow(unsafe_code)]
pub(crate) fn close_at_exit() {
    // SAFETY: the callback may run at any time; what is registered last runs first.
    if unsafe { libc::atexit(close_all) } != 0 {
        tracing::warn!("the end of the process could not be hooked; close() services before it");
    }
}

/// On a thread of its own, since Python may not answer. Only the first of the hooks closes: the others would wait once
/// more for each forward pass that hangs.
extern "C" fn close_all() {
    static CLOSED: AtomicBool = AtomicBool::new(false);
    if CLOSED.swap(true, Ordering::SeqCst) {
        return;
    }
    let (done, ended) = mpsc::channel();
    let close = move || {
        let closed = Python::try_attach(|py| {
            // Not imported anew: where it is not loaded there is no engine.
            let modules = py.import("sys")?.getattr("modules")?;
            let process = modules.call_method1("get", ("akidb_mlx.runtime.process",))?;
            if process.is_none() { Ok(()) } else { process.call_method0("close_all").map(drop) }
        });
        if let Some(Err(error)) = closed {
            tracing::error!("closing at the end of the process failed: {error}");
        }
        let _ = done.send(());
    };
    if thread::Builder::new().name("akidb-exit".to_owned()).spawn(close).is_ok() {
        let _ = ended.recv_timeout(CLOSE_WITHIN);
    }
}

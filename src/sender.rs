//! Sends what is pending in the current step, with the server's `send`.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::pump::{DirectSend, Waiting};

/// Bytes that are sent next.
pub(crate) trait Pending {
    fn is_empty(&self) -> bool;

    /// Take the bytes of one send.
    ///
    /// # Errors
    ///
    /// `MemoryError`.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>>;

    /// Note that what was taken last has been sent.
    fn sent(&self);
}

/// Sends for an outlet, while that sleeps; wakes it if it does not.
pub(crate) struct Sender {
    outlet: Py<PyAny>,
    direct: Mutex<Option<Py<DirectSend>>>,
}

impl Sender {
    pub(crate) const fn new(outlet: Py<PyAny>) -> Self {
        Self {
            outlet,
            direct: Mutex::new(None),
        }
    }

    pub(crate) fn outlet<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.outlet.bind(py)
    }

    /// Send from now on, or, with `None`, wake the outlet instead.
    pub(crate) fn send_with(&self, direct: Option<Py<DirectSend>>) {
        let before = mem::replace(&mut *self.lock(), direct);
        drop(before);
    }

    /// Wake the outlet.
    ///
    /// # Errors
    ///
    /// None that is expected.
    pub(crate) fn wake(&self, py: Python<'_>) -> PyResult<()> {
        let wake = intern!(py, "wake");
        self.outlet(py).call_method0(wake).map(drop)
    }

    /// Send what is pending, or have the outlet send it.
    ///
    /// # Errors
    ///
    /// `KeyboardInterrupt` and `SystemExit` of a `send`; the outlet is told of other errors.
    pub(crate) fn flush(&self, py: Python<'_>, pending: &impl Pending) -> PyResult<()> {
        if pending.is_empty() {
            return Ok(());
        }
        let direct = self.lock().as_ref().map(|direct| direct.clone_ref(py));
        let Some(direct) = direct else {
            return self.wake(py);
        };
        let direct = direct.get();
        if let Some((send, head)) = direct.take_head() {
            self.outlet(py).call_method0(intern!(py, "begun"))?;
            if !self.is_sent(py, direct.begin(&send, head.bind(py)))? {
                return Ok(());
            }
        }
        while !pending.is_empty() {
            let body = pending.take(py)?;
            if body.as_bytes().is_empty() {
                return Ok(()); // what was pending waits for something else
            }
            if !self.is_sent(py, direct.begin_body(&body))? {
                return Ok(());
            }
            pending.sent();
        }
        Ok(())
    }

    /// Whether all of a message was sent. If not, the outlet goes on with it.
    fn is_sent(&self, py: Python<'_>, begun: PyResult<Option<Waiting<'_>>>) -> PyResult<bool> {
        let outlet = self.outlet(py);
        match begun {
            Ok(None) => return Ok(true),
            Ok(Some(waiting)) => {
                self.send_with(None);
                outlet.call_method1(intern!(py, "hand_over"), waiting)?;
            }
            Err(error) => self.fail(py, error)?,
        }
        Ok(false)
    }

    /// Hand an error to the outlet, which raises it.
    ///
    /// # Errors
    ///
    /// `KeyboardInterrupt` and `SystemExit`, which are for the event loop.
    pub(crate) fn fail(&self, py: Python<'_>, error: PyErr) -> PyResult<()> {
        if is_for_the_loop(py, &error) {
            return Err(error);
        }
        self.send_with(None);
        let send_failed = intern!(py, "send_failed");
        self.outlet(py)
            .call_method1(send_failed, (error,))
            .map(drop)
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(direct) = self.direct.try_lock() {
            visit.call(&*direct)?;
        }
        visit.call(&self.outlet)
    }

    /// Held for copies only, never while Python code can run.
    fn lock(&self) -> MutexGuard<'_, Option<Py<DirectSend>>> {
        self.direct.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an error ends the event loop, rather than the stream.
fn is_for_the_loop(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py)
}

//! `Part`: bytes that belong together in one send, unless they are too many for one.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::bytes;
use crate::wire;

/// The size of one send. The timeout of a slow client applies to each send, so a client that is
/// slow but still reading must be able to finish one in time.
const SEND_SIZE: usize = 256 * 1024;

/// Bytes that belong together in one send, unless they are too many for one.
pub(crate) struct Part {
    bytes: Bytes,
    size: usize,
    /// The number of bytes that were taken already.
    start: usize,
    /// The number of events that the last byte completes.
    pub(crate) events: u64,
}

enum Bytes {
    Run(Vec<u8>),
    Large(Py<PyBytes>),
}

impl Part {
    /// Return a part of small frames that were joined.
    pub(crate) fn run(run: Vec<u8>, events: u64) -> Self {
        Self {
            size: run.len(),
            bytes: Bytes::Run(run),
            start: 0,
            events,
        }
    }

    /// Return a part of one `bytes` object, which is sent without a copy.
    pub(crate) fn large(bytes: Bound<'_, PyBytes>, events: u64) -> Self {
        Self {
            size: bytes.as_bytes().len(),
            bytes: Bytes::Large(bytes.unbind()),
            start: 0,
            events,
        }
    }

    /// Return the number of bytes that were not taken yet.
    pub(crate) const fn left(&self) -> usize {
        self.size - self.start
    }

    /// Put bytes before those of joined frames. Return the bytes if the part is of another kind.
    pub(crate) fn prepend(&mut self, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        let Bytes::Run(run) = &mut self.bytes else {
            return Some(bytes);
        };
        bytes.append(run);
        self.size = bytes.len();
        *run = bytes;
        None
    }

    /// Return the memory of joined frames.
    pub(crate) fn into_space(self) -> Option<Vec<u8>> {
        match self.bytes {
            Bytes::Run(run) => Some(run),
            Bytes::Large(_) => None,
        }
    }

    fn bytes<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        match &self.bytes {
            Bytes::Run(run) => run,
            Bytes::Large(bytes) => bytes.as_bytes(py),
        }
    }

    /// Return the bytes of the next send: the whole part, unless it is too large for one send. Then
    /// they end after a line, or at least after a character, because middleware may decode each
    /// ASGI message separately.
    ///
    /// # Errors
    ///
    /// `MemoryError`.
    pub(crate) fn take<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.bytes(py);
        let rest = &bytes[self.start..];
        // Up to half as much again is sent at once, so that the last send is never a tiny one.
        let length = if rest.len() > SEND_SIZE + SEND_SIZE / 2 {
            wire::end_of_line_or_character(&rest[..SEND_SIZE])
        } else {
            rest.len()
        };
        let body = match &self.bytes {
            Bytes::Large(whole) if length == bytes.len() => whole.bind(py).clone(),
            _ => bytes::copy(py, &rest[..length])?,
        };
        self.start += length;
        Ok(body)
    }
}

//! Frames as Python `bytes` objects. A large frame is written straight into its object; a small one
//! is written into scratch space and copied once.

use std::cell::Cell;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::lines::DataLines;
use crate::output::Output;

/// The size from which on a frame is a `bytes` object of its own: copying it next to its neighbours
/// would cost more than sending it alone.
pub(crate) const LARGE: usize = 8 * 1024;

/// The capacity up to which scratch space is kept for the next frame.
const MAX_KEPT_SCRATCH: usize = 1024 * 1024;

thread_local! {
    /// The space of this thread to encode into. It is taken while it is in use, because an encoder
    /// can run any Python code, which may encode something too.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Take the scratch space of this thread, which is empty. It keeps its capacity, so that its pages
/// are not faulted in again for each frame.
pub(crate) fn take_scratch() -> Vec<u8> {
    // A thread that is ending has dropped its scratch space already.
    SCRATCH.try_with(Cell::take).unwrap_or_default()
}

/// Give scratch space back to this thread. Its content is dropped.
pub(crate) fn return_scratch(mut scratch: Vec<u8>) {
    if scratch.capacity() <= MAX_KEPT_SCRATCH {
        scratch.clear();
        let _ = SCRATCH.try_with(|kept| kept.set(scratch));
    }
}

/// A large frame, or `None` if the frame was small and was appended to the output.
pub(crate) type Large<'py> = Option<Bound<'py, PyBytes>>;

/// Return `before`, the `data: ` lines of `text`, and `after`, in one `bytes` object.
///
/// # Errors
///
/// `MemoryError`.
#[inline(never)] // Small events must not pay for its stack frame.
pub(crate) fn surround<'py>(
    py: Python<'py>,
    before: &[u8],
    text: &[u8],
    after: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let lines = DataLines::of(text);
    let mut scratch = Output::default();
    fill(py, before.len() + lines.size() + after.len(), |put| {
        put(before)?;
        lines.write(&mut scratch, &mut *put)?;
        scratch.check()?;
        put(after)
    })
}

/// Move the content of `out` from `start` on to a `bytes` object, if it is large.
///
/// # Errors
///
/// `MemoryError`.
#[inline]
pub(crate) fn split_off_large<'py>(
    py: Python<'py>,
    out: &mut Output,
    start: usize,
) -> PyResult<Large<'py>> {
    if out.len() - start < LARGE {
        // The frame is small, or `out` is torn: the caller that made `out` checks that.
        return Ok(None);
    }
    split_off(py, out, start)
}

#[inline(never)]
fn split_off<'py>(py: Python<'py>, out: &mut Output, start: usize) -> PyResult<Large<'py>> {
    out.check()?;
    let large = copy(py, &out[start..])?;
    out.truncate(start);
    Ok(Some(large))
}

/// Append `frame` to `out`, or return it if it is large.
pub(crate) fn append<'py>(frame: &Bound<'py, PyBytes>, out: &mut Output) -> Large<'py> {
    if frame.as_bytes().len() < LARGE {
        out.extend_from_slice(frame.as_bytes());
        None
    } else {
        Some(frame.clone())
    }
}

/// Return the frame that `write` appends to an empty output, or returns if it is large.
///
/// # Errors
///
/// The errors of `write`, or `MemoryError`.
pub(crate) fn build<'py>(
    py: Python<'py>,
    write: impl FnOnce(&mut Output) -> PyResult<Large<'py>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Output::from(take_scratch());
    let frame = write(&mut out).and_then(|large| {
        out.check()?;
        large.map_or_else(|| copy(py, &out), Ok)
    });
    return_scratch(out.into());
    frame
}

/// Return a copy of `bytes`. `PyBytes::new` would panic when memory runs out.
///
/// # Errors
///
/// `MemoryError`.
pub(crate) fn copy<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    if bytes.len() < LARGE {
        return PyBytes::new_with(py, bytes.len(), |room| {
            room.copy_from_slice(bytes);
            Ok(())
        });
    }
    fill(py, bytes.len(), |put| put(bytes))
}

/// Return the pieces, concatenated.
///
/// # Errors
///
/// `MemoryError`.
pub(crate) fn concat<'py>(py: Python<'py>, pieces: &[&[u8]]) -> PyResult<Bound<'py, PyBytes>> {
    let size = pieces.iter().map(|piece| piece.len()).sum();
    fill(py, size, |put| {
        pieces.iter().try_for_each(|piece| put(piece))
    })
}

/// Return a `bytes` object of `size` bytes, filled with the pieces that `write` puts.
///
/// The writer of `PyO3` 0.30 can grow, but it panics when that fails, so it gets the whole size at
/// once. With the stable ABI the writer would be a `Vec` that is copied at the end; there the bytes
/// are zeroed first instead.
fn fill(
    py: Python<'_>,
    size: usize,
    write: impl FnOnce(&mut dyn FnMut(&[u8]) -> PyResult<()>) -> PyResult<()>,
) -> PyResult<Bound<'_, PyBytes>> {
    #[cfg(not(Py_LIMITED_API))]
    return PyBytes::new_with_writer(py, size, |writer| {
        write(&mut |piece| writer.write_bytes(piece))
    });
    #[cfg(Py_LIMITED_API)]
    PyBytes::new_with(py, size, |mut room| {
        write(&mut |piece| Ok(std::io::Write::write_all(&mut room, piece)?))
    })
}

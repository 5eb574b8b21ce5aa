//! Frames as Python `bytes` objects. A large frame is written straight into its object; a small one
//! is written into scratch space and copied once.

use std::cell::Cell;
use std::io::Write;

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

/// Return the lines of a large text that [`surround`] writes straight into a `bytes` object, or
/// `None` if it costs less to write them to the output and copy that.
///
/// The size of the object has to be known first. Counting the line breaks of a text takes longer
/// than copying it. Only a text that would not fit into scratch space is counted, because growing
/// that would take longer still.
#[inline]
pub(crate) fn large_lines(text: &[u8]) -> Option<DataLines<'_>> {
    if text.len() < LARGE {
        return None;
    }
    let counted = || (text.len() > MAX_KEPT_SCRATCH / 2).then(|| DataLines::of(text));
    DataLines::one(text).or_else(counted)
}

/// Return `before`, `lines` and `after` in one `bytes` object.
///
/// # Errors
///
/// `MemoryError`.
#[inline(never)] // Small events must not pay for its stack frame.
pub(crate) fn surround<'py>(
    py: Python<'py>,
    before: &[u8],
    lines: &DataLines<'_>,
    after: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    if let Some([start, text, end]) = lines.pieces() {
        return concat(py, &[before, start, text, end, after]);
    }
    // The bytes are zeroed first, which costs less than a call of Python's writer for each piece.
    let size = before.len() + lines.size() + after.len();
    PyBytes::new_with(py, size, |mut room| {
        room.write_all(before)?;
        lines.write(&mut room)?;
        Ok(room.write_all(after)?)
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
        write(&mut |piece| Ok(room.write_all(piece)?))
    })
}

//! Frames as `bytes` objects: made in place where they are large, copied once where they are not.

use std::cell::Cell;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::lines::DataLines;
use crate::output::Output;

/// From this size on, a frame is `bytes` of its own: joining it with its neighbours would cost
/// more than sending it alone.
pub(crate) const LARGE: usize = 8 * 1024;

/// Larger scratch space is given back rather than kept for the next frame.
const KEEP_SCRATCH: usize = 1024 * 1024;

thread_local! {
    /// Taken while it is in use, since an encoder may run any code, which may encode as well.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Take this thread's empty space to encode into. It keeps the size that it needed last, so that
/// no page of it is faulted in twice.
pub(crate) fn take_scratch() -> Vec<u8> {
    // Of a thread that ends there is none any more.
    SCRATCH.try_with(Cell::take).unwrap_or_default()
}

/// Give the space back, whatever is in it.
pub(crate) fn keep_scratch(mut scratch: Vec<u8>) {
    if scratch.capacity() <= KEEP_SCRATCH {
        scratch.clear();
        let _ = SCRATCH.try_with(|kept| kept.set(scratch));
    }
}

/// A small frame that was appended to the output, or a large one.
pub(crate) type Large<'py> = Option<Bound<'py, PyBytes>>;

/// Return `before`, the `data` lines of `text`, and `after`, in one `bytes` object.
///
/// # Errors
///
/// `MemoryError`.
#[inline(never)] // so that small events do not pay for its stack
pub(crate) fn around<'py>(
    py: Python<'py>,
    before: &[u8],
    text: &[u8],
    after: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let lines = DataLines::of(text);
    let mut together = Output::default();
    filled(py, before.len() + lines.size() + after.len(), |put| {
        put(before)?;
        lines.write(&mut together, &mut *put)?;
        together.check()?;
        put(after)
    })
}

/// Take what `out` has from `start` on as `bytes`, if that is large.
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
        return Ok(None); // or torn, which whoever made `out` looks for
    }
    split_off(py, out, start)
}

#[inline(never)]
fn split_off<'py>(py: Python<'py>, out: &mut Output, start: usize) -> PyResult<Large<'py>> {
    out.check()?;
    let large = copied(py, &out[start..])?;
    out.truncate(start);
    Ok(Some(large))
}

/// Append `frame` to `out`, or return it if it is large.
pub(crate) fn appended<'py>(frame: &Bound<'py, PyBytes>, out: &mut Output) -> Large<'py> {
    if frame.as_bytes().len() < LARGE {
        out.extend_from_slice(frame.as_bytes());
        None
    } else {
        Some(frame.clone())
    }
}

/// Return a frame that `write` either appends to an empty output or makes by itself.
///
/// # Errors
///
/// Those of `write`, or `MemoryError`.
pub(crate) fn made<'py>(
    py: Python<'py>,
    write: impl FnOnce(&mut Output) -> PyResult<Large<'py>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Output::from(take_scratch());
    let made = write(&mut out).and_then(|large| {
        out.check()?;
        large.map_or_else(|| copied(py, &out), Ok)
    });
    keep_scratch(out.into());
    made
}

/// Return a copy of `bytes`. `PyBytes::new` would panic where there is no memory for it.
///
/// # Errors
///
/// `MemoryError`.
pub(crate) fn copied<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    if bytes.len() < LARGE {
        return PyBytes::new_with(py, bytes.len(), |room| {
            room.copy_from_slice(bytes);
            Ok(())
        });
    }
    filled(py, bytes.len(), |put| put(bytes))
}

/// Return `bytes` of a size that is known, from the pieces that `fill` passes on.
///
/// `PyO3`'s writer grows by itself, but panics where that fails (0.30): it is given all of the
/// size at once. With the stable interface it would be a `Vec`, which is copied at the end; there
/// the bytes are zeroed first instead.
fn filled(
    py: Python<'_>,
    size: usize,
    fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> PyResult<()>) -> PyResult<()>,
) -> PyResult<Bound<'_, PyBytes>> {
    #[cfg(not(Py_LIMITED_API))]
    return PyBytes::new_with_writer(py, size, |writer| {
        fill(&mut |piece| writer.write_bytes(piece))
    });
    #[cfg(Py_LIMITED_API)]
    PyBytes::new_with(py, size, |mut room| {
        fill(&mut |piece| Ok(std::io::Write::write_all(&mut room, piece)?))
    })
}

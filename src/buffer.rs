//! `EventBuffer`: frames that wait for the next send.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::encoder::ItemEncoder;
use crate::wire;

/// Larger buffers are given back rather than kept for the next events of a stream.
const KEEP_CAPACITY: usize = 16 * 1024;

/// How many events a generator that has awaited between two of them may push without being asked
/// to give way.
const TRUST: u8 = 32;

/// Encodes items into one byte buffer: `push` from the task or thread that iterates, `take` from
/// the one that sends.
#[pyclass(frozen, module = "fastapi_sse_fast._core")]
pub(crate) struct EventBuffer {
    encoder: Py<ItemEncoder>,
    wake: Py<PyAny>,
    source: Py<PyAny>,
    high_water: usize,
    time_slice: Duration,
    state: Mutex<State>,
}

struct State {
    pending: Vec<u8>,
    pending_events: u64,
    taken_events: u64,
    /// The last bytes that were taken, as many as a blank line can have; first of all line feeds.
    tail: [u8; 4],
    /// Space to encode into while the lock is not held: an encoder may run any code.
    scratch: Vec<u8>,
    /// `None` before the first push, which gives way at once: the first event must not wait for
    /// the work that an ill-mannered generator does, without an `await`, for the second.
    slice_began: Option<Instant>,
    pushed_at: Option<Instant>,
    loop_turned: bool,
    trust: u8,
    closed: bool,
}

#[pymethods]
impl EventBuffer {
    #[new]
    #[pyo3(signature = (encoder, wake, *, source, high_water, time_slice))]
    fn new(
        encoder: Py<ItemEncoder>,
        wake: Py<PyAny>,
        source: Py<PyAny>,
        high_water: usize,
        time_slice: f64,
    ) -> PyResult<Self> {
        let time_slice = Duration::try_from_secs_f64(time_slice)
            .map_err(|error| PyValueError::new_err(format!("time_slice: {error}")))?;
        let state = State {
            pending: Vec::new(),
            pending_events: 0,
            taken_events: 0,
            tail: [b'\n'; 4],
            scratch: Vec::new(),
            slice_began: None,
            pushed_at: None,
            loop_turned: false,
            trust: 0,
            closed: false,
        };
        Ok(Self {
            encoder,
            wake,
            source,
            high_water,
            time_slice,
            state: Mutex::new(state),
        })
    }

    #[pyo3(signature = (item, /))]
    fn push(&self, item: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = item.py();
        let mut frame = mem::take(&mut self.lock().scratch);
        let encoded = self.encoder.get().encode(item, &mut frame);
        if let Ok(Some(large)) = &encoded {
            frame.extend_from_slice(large.as_bytes());
        }
        let (woke, give_way) = self.lock().append(frame, encoded.is_ok(), self);
        if let Err(error) = encoded {
            // Where there are no notes (before 3.11), or something in the way, it goes without.
            let _ = self.note(item, &error);
            return Err(error);
        }
        if woke {
            self.wake.call0(py)?;
        }
        Ok(give_way)
    }

    fn take<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let mut taken = {
            let mut state = self.lock();
            state.taken_events += mem::take(&mut state.pending_events);
            state.note_tail();
            mem::take(&mut state.pending)
        };
        let body = PyBytes::new(py, &taken);
        if taken.capacity() <= KEEP_CAPACITY {
            taken.clear();
            let mut state = self.lock();
            if state.pending.capacity() == 0 {
                state.pending = taken;
            }
        }
        body
    }

    /// The producer goes on after it has given way.
    fn resume(&self) {
        let mut state = self.lock();
        state.slice_began = Some(Instant::now());
        state.loop_turned = false;
    }

    /// The loop has turned since the producer went on.
    fn turned(&self) {
        self.lock().loop_turned = true;
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.pending = Vec::new();
        state.scratch = Vec::new();
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.encoder)?;
        visit.call(&self.wake)?;
        visit.call(&self.source)
    }

    #[getter]
    fn taken_events(&self) -> u64 {
        self.lock().taken_events
    }

    /// In chunks of a body an event can come in parts.
    #[getter]
    fn mid_event(&self) -> bool {
        !wire::ends_with_blank_line(&self.lock().tail)
    }

    #[getter]
    fn full(&self) -> bool {
        self.lock().pending.len() >= self.high_water
    }

    fn __len__(&self) -> usize {
        self.lock().pending.len()
    }
}

impl EventBuffer {
    /// Says which item it was: the traceback ends in our code, and not at a `yield`.
    #[cold]
    fn note(&self, item: &Bound<'_, PyAny>, error: &PyErr) -> PyResult<()> {
        let py = item.py();
        let number = {
            let state = self.lock();
            state.taken_events + state.pending_events + 1
        };
        let source = self.source.bind(py);
        let name = match source.getattr_opt(intern!(py, "__qualname__"))? {
            Some(name) => name.str()?,
            None => source.get_type().qualname()?,
        };
        let class = item.get_type().qualname()?;
        let note = format!("item {number} of {name}, of type '{class}', could not be encoded");
        error
            .value(py)
            .call_method1(intern!(py, "add_note"), (note,))?;
        Ok(())
    }

    /// Held for copies only, never while Python code can run; so nothing can have panicked with it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Appends what was encoded and keeps its space. Returns whether something waits that did
    /// not before, and whether the producer should give way.
    fn append(&mut self, mut frame: Vec<u8>, encoded: bool, buffer: &EventBuffer) -> (bool, bool) {
        if self.closed {
            return (false, true);
        }
        let was_empty = self.pending.is_empty();
        if encoded {
            self.pending_events += 1;
            if was_empty && frame.capacity() > self.pending.capacity() {
                mem::swap(&mut self.pending, &mut frame);
            } else {
                self.pending.extend_from_slice(&frame);
            }
        }
        if frame.capacity() <= KEEP_CAPACITY {
            frame.clear();
            self.scratch = frame;
        }
        let give_way = self.slice_is_over(was_empty, buffer.time_slice)
            || self.pending.len() >= buffer.high_water;
        (was_empty && !self.pending.is_empty(), give_way)
    }

    fn note_tail(&mut self) {
        let new = self.pending.len().min(self.tail.len());
        self.tail.rotate_left(new);
        let from = self.tail.len() - new;
        self.tail[from..].copy_from_slice(&self.pending[self.pending.len() - new..]);
    }

    /// Whether the producer has had its time.
    ///
    /// A generator that awaits between its events lets the loop turn by itself. It is trusted to
    /// go on like that for some events, as long as each is taken before the next one comes.
    fn slice_is_over(&mut self, was_empty: bool, time_slice: Duration) -> bool {
        let now = Instant::now();
        let waited = now - self.pushed_at.replace(now).unwrap_or(now);
        let Some(slice_began) = self.slice_began else {
            self.slice_began = Some(now);
            return true;
        };
        if mem::take(&mut self.loop_turned) {
            self.trust = TRUST;
        }
        if !was_empty && waited >= time_slice {
            self.trust = 0;
        }
        if was_empty && self.trust > 0 {
            self.trust -= 1;
            self.slice_began = Some(now);
            return false;
        }
        now - slice_began >= time_slice
    }
}

//! `EventBuffer`: the frames that wait for the next send.
//!
//! The buffer decides what one send contains and when a producer should pause. It does not send
//! anything itself.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::bytes::{self, Large};
use crate::encoder::ItemEncoder;
use crate::output::OutOfMemory;
use crate::pacing::Pacing;
use crate::part::Part;
use crate::progress::Progress;
use crate::sender::Pending;
use crate::wire;

/// The capacity that `shrink` keeps for the next run of small frames.
const MAX_KEPT_CAPACITY: usize = 16 * 1024;

/// Encodes items into the bytes of the next send. The task or thread that iterates calls `push`,
/// and the task that sends calls `take`.
///
/// Small frames are joined into one run of bytes. A large frame is a part of its own and is sent as
/// the `bytes` object that it was encoded into.
#[pyclass(frozen, module = "fastapi_sse_fast._core")]
pub(crate) struct EventBuffer {
    encoder: Py<ItemEncoder>,
    source: Py<PyAny>,
    wake: Option<Py<PyAny>>,
    max_pending: usize,
    state: Mutex<State>,
}

struct State {
    /// The first bytes of the stream, until they are taken. They do not count as pending, so they
    /// do not cause a send on their own.
    opening: Vec<u8>,
    /// The parts that are older than `run`.
    parts: VecDeque<Part>,
    /// The small frames that were pushed last.
    run: Vec<u8>,
    run_events: u64,
    pending: usize,
    pending_events: u64,
    progress: Progress,
    /// The last bytes that were taken, as many as a blank line can have (`\r\n\r\n`). Line feeds at
    /// first, because a stream begins outside of an event.
    tail: [u8; 4],
    pacing: Pacing,
    closed: bool,
}

/// The result of a push.
#[derive(Clone, Copy)]
pub(crate) struct Pushed {
    /// Whether the buffer was empty before and is not any more.
    pub(crate) was_empty: bool,
    /// Whether `max_pending` is reached.
    pub(crate) full: bool,
    /// Whether the time slice of the producer is over.
    pub(crate) slice_is_over: bool,
}

#[pymethods]
impl EventBuffer {
    #[new]
    #[pyo3(signature = (encoder, *, source, max_pending, time_slice, opening=None, wake=None))]
    fn new(
        encoder: Py<ItemEncoder>,
        source: Py<PyAny>,
        max_pending: usize,
        time_slice: f64,
        opening: Option<Vec<u8>>,
        wake: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let slice = Duration::try_from_secs_f64(time_slice)
            .map_err(|error| PyValueError::new_err(format!("time_slice: {error}")))?;
        let state = State {
            opening: opening.unwrap_or_default(),
            parts: VecDeque::new(),
            run: Vec::new(),
            run_events: 0,
            pending: 0,
            pending_events: 0,
            progress: Progress::new(),
            tail: [b'\n'; 4],
            pacing: Pacing::new(slice),
            closed: false,
        };
        Ok(Self {
            encoder,
            source,
            wake,
            max_pending,
            state: Mutex::new(state),
        })
    }

    #[pyo3(signature = (item, /))]
    fn push(&self, item: &Bound<'_, PyAny>) -> PyResult<bool> {
        let pushed = self.append(item)?;
        if pushed.was_empty
            && let Some(wake) = &self.wake
        {
            wake.call0(item.py())?;
        }
        Ok(pushed.full || pushed.slice_is_over)
    }

    /// Return the bytes of the next send, or empty bytes if nothing is pending.
    ///
    /// # Errors
    ///
    /// `MemoryError`.
    pub(crate) fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let Some(mut part) = self.lock().next_part() else {
            return Ok(PyBytes::new(py, b""));
        };
        let body = part.take(py)?;
        let mut state = self.lock();
        state.pending = state.pending.saturating_sub(body.as_bytes().len());
        // An opening that is taken alone is not part of an event, although no blank line ends it.
        if part.events > 0 {
            state.note_tail(body.as_bytes());
        }
        let events = part.events;
        if part.left() == 0 {
            state.pending_events = state.pending_events.saturating_sub(events);
            state.progress.taken(body.as_bytes().len(), events, events);
            state.reuse_space_of(part);
        } else {
            state.progress.taken(body.as_bytes().len(), events, 0);
            if !state.closed {
                state.parts.push_front(part);
            }
        }
        Ok(body)
    }

    /// Record that all bytes that were taken have been sent.
    pub(crate) fn sent(&self) {
        self.lock().progress.sent();
    }

    /// Begin the next time slice of the producer.
    pub(crate) fn resume(&self) {
        self.lock().pacing.resume(Instant::now());
    }

    fn close(&self) {
        let (parts, run) = {
            let mut state = self.lock();
            state.closed = true;
            state.pending = 0;
            state.pending_events = 0;
            state.run_events = 0;
            (mem::take(&mut state.parts), mem::take(&mut state.run))
        };
        drop((parts, run));
    }

    /// Free the memory that a burst has needed.
    fn shrink(&self) {
        let mut state = self.lock();
        if state.run.is_empty() && state.run.capacity() > MAX_KEPT_CAPACITY {
            state.run = Vec::new();
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.encoder)?;
        visit.call(&self.wake)?;
        visit.call(&self.source)
    }

    #[getter]
    fn sent_events(&self) -> u64 {
        self.lock().progress.sent_events()
    }

    #[getter]
    fn sent_bytes(&self) -> u64 {
        self.lock().progress.sent_bytes()
    }

    /// The seconds from the creation of the buffer until an event was taken for the first time.
    #[getter]
    fn seconds_to_first_event(&self) -> Option<f64> {
        self.lock().progress.seconds_to_first_event()
    }

    /// The seconds since bytes were last taken, or since the buffer was created.
    #[getter]
    fn seconds_idle(&self) -> f64 {
        self.lock().progress.seconds_idle()
    }

    /// Whether the bytes that were taken so far end inside an event. This happens only where items
    /// are parts of a body: a part may hold a piece of an event.
    #[getter]
    fn mid_event(&self) -> bool {
        !wire::ends_with_blank_line(&self.lock().tail)
    }

    #[getter]
    pub(crate) fn full(&self) -> bool {
        self.is_full(&self.lock())
    }

    fn __len__(&self) -> usize {
        self.lock().pending
    }
}

impl EventBuffer {
    /// Return whether producer and client are in lockstep: each event is sent before the producer
    /// is asked for the next one.
    pub(crate) const fn is_lockstep(&self) -> bool {
        self.max_pending == 0
    }

    /// Append the frame of an item, completely or not at all. A closed buffer drops every item,
    /// also one that cannot be encoded.
    ///
    /// # Errors
    ///
    /// Whatever the encoder raises, with a note that says which item it was.
    pub(crate) fn append(&self, item: &Bound<'_, PyAny>) -> PyResult<Pushed> {
        if self.lock().closed {
            return Ok(Pushed {
                was_empty: false,
                full: true,
                slice_is_over: true,
            });
        }
        // Encoding straight into the buffer would keep it locked while Python code runs.
        let mut scratch = bytes::take_scratch();
        let pushed = self
            .encoder
            .get()
            .encode(item, &mut scratch)
            .and_then(|large| Ok(self.append_frame(&scratch, &large)?));
        bytes::return_scratch(scratch);
        pushed.inspect_err(|error| {
            // The error matters more than its note: exceptions have no notes before Python 3.11,
            // and code of the application can prevent one.
            let _ = self.add_note(item, error);
        })
    }

    fn append_frame(&self, frame: &[u8], large: &Large<'_>) -> Result<Pushed, OutOfMemory> {
        let mut state = self.lock();
        let was_empty = state.pending == 0;
        if !state.closed {
            state.append(frame, large)?;
        }
        Ok(Pushed {
            was_empty: was_empty && state.pending > 0,
            full: self.is_full(&state),
            slice_is_over: state.pacing.is_over(Instant::now()),
        })
    }

    /// Return whether the producer should pause. A closed buffer counts as full, so that the
    /// producer notices that it is closed. In lockstep the buffer is full until all bytes that were
    /// taken have been sent.
    fn is_full(&self, state: &State) -> bool {
        if state.closed {
            true
        } else if self.max_pending == 0 {
            state.pending > 0 || !state.progress.all_is_sent()
        } else {
            state.pending >= self.max_pending
        }
    }

    /// Add a note to `error` that says which item it was. The traceback does not: it ends in our
    /// code and not at the `yield`.
    #[cold]
    fn add_note(&self, item: &Bound<'_, PyAny>, error: &PyErr) -> PyResult<()> {
        let py = item.py();
        let number = {
            let state = self.lock();
            state.progress.taken_events() + state.pending_events + 1
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

    /// Lock the state. The lock is held only to copy, never while Python code can run, so no panic
    /// can have poisoned it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending for EventBuffer {
    fn is_empty(&self) -> bool {
        self.lock().pending == 0
    }

    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Self::take(self, py)
    }

    fn sent(&self) {
        Self::sent(self);
    }
}

impl State {
    fn append(&mut self, frame: &[u8], large: &Large<'_>) -> Result<(), OutOfMemory> {
        if let Some(large) = large {
            self.end_run();
            self.pending += large.as_bytes().len();
            self.parts.push_back(Part::large(large.clone(), 1));
        } else {
            self.run.try_reserve(frame.len()).map_err(|_| OutOfMemory)?;
            self.run.extend_from_slice(frame);
            self.run_events += 1;
            self.pending += frame.len();
        }
        self.pending_events += 1;
        Ok(())
    }

    /// Make the current run a part, so that the next frame begins a new one.
    fn end_run(&mut self) {
        if !self.run.is_empty() {
            let run = mem::take(&mut self.run);
            self.parts
                .push_back(Part::run(run, mem::take(&mut self.run_events)));
        }
    }

    fn next_part(&mut self) -> Option<Part> {
        if self.parts.is_empty() {
            self.end_run();
        }
        if !self.opening.is_empty() {
            self.prepend_opening();
        }
        self.parts.pop_front()
    }

    /// Put the opening before the first part.
    fn prepend_opening(&mut self) {
        let opening = mem::take(&mut self.opening);
        self.pending += opening.len();
        let alone = match self.parts.front_mut() {
            Some(part) => part.prepend(opening),
            None => Some(opening),
        };
        if let Some(opening) = alone {
            self.parts.push_front(Part::run(opening, 0));
        }
    }

    fn note_tail(&mut self, body: &[u8]) {
        let new = body.len().min(self.tail.len());
        self.tail.rotate_left(new);
        let from = self.tail.len() - new;
        self.tail[from..].copy_from_slice(&body[body.len() - new..]);
    }

    /// Use the memory of a part that was taken for the next run.
    fn reuse_space_of(&mut self, part: Part) {
        if let Some(mut run) = part.into_space()
            && run.capacity() > self.run.capacity()
            && self.run.is_empty()
        {
            run.clear();
            self.run = run;
        }
    }
}

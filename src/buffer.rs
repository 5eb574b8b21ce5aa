//! `EventBuffer`: frames that wait for the next send.

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
use crate::wire;

/// A run of small frames that is larger gives its space back when the stream has nothing to send.
const KEEP_CAPACITY: usize = 16 * 1024;

/// Bytes of one send: a slow client that reads more than that is not a frozen one.
const MOST_AT_ONCE: usize = 256 * 1024;

/// Encodes items into the bytes that are sent next: `push` from the task or thread that iterates,
/// `take` from whatever sends.
///
/// Small frames are joined to one run of bytes; a large one is a part of its own, and is sent as
/// the `bytes` that it was encoded into.
#[pyclass(frozen, module = "fastapi_sse_fast._core")]
pub(crate) struct EventBuffer {
    encoder: Py<ItemEncoder>,
    source: Py<PyAny>,
    wake: Option<Py<PyAny>>,
    max_pending: usize,
    state: Mutex<State>,
}

/// Bytes that are sent together, or the rest of them.
struct Part {
    bytes: Bytes,
    /// How many of them were sent.
    start: usize,
    /// How many events are complete with the last of them.
    events: u64,
}

enum Bytes {
    Run(Vec<u8>),
    Large(Py<PyBytes>),
}

struct State {
    /// What the stream begins with, until it was taken. It does not wait by itself.
    opening: Vec<u8>,
    /// What is older than `run`.
    parts: VecDeque<Part>,
    run: Vec<u8>,
    run_events: u64,
    pending: usize,
    pending_events: u64,
    taken: u64,
    taken_events: u64,
    sent: u64,
    sent_events: u64,
    /// The last bytes that were taken, as many as a blank line can have; first of all line feeds.
    tail: [u8; 4],
    began_at: Instant,
    first_event_at: Option<Instant>,
    taken_at: Instant,
    pacing: Pacing,
    closed: bool,
}

/// What a push has changed.
#[derive(Clone, Copy)]
pub(crate) struct Pushed {
    /// Something waits that did not before.
    pub(crate) was_empty: bool,
    /// `max_pending` is reached.
    pub(crate) full: bool,
    /// The producer has had its time.
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
        let now = Instant::now();
        let state = State {
            opening: opening.unwrap_or_default(),
            parts: VecDeque::new(),
            run: Vec::new(),
            run_events: 0,
            pending: 0,
            pending_events: 0,
            taken: 0,
            taken_events: 0,
            sent: 0,
            sent_events: 0,
            tail: [b'\n'; 4],
            began_at: now,
            first_event_at: None,
            taken_at: now,
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

    /// The next bytes to send, in one send; none when nothing waits.
    pub(crate) fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let Some(mut part) = self.lock().next_part() else {
            return Ok(PyBytes::new(py, b""));
        };
        let body = part.take(py)?;
        let mut state = self.lock();
        state.note_taken(body.as_bytes().len());
        // The opening is no part of an event, though no blank line ends it.
        if part.events > 0 {
            state.note_tail(body.as_bytes());
            let taken_at = state.taken_at;
            state.first_event_at.get_or_insert(taken_at);
        }
        if part.is_over(py) {
            state.taken_events += part.events;
            state.pending_events = state.pending_events.saturating_sub(part.events);
            state.keep_space_of(part);
        } else if !state.closed {
            state.parts.push_front(part);
        }
        Ok(body)
    }

    /// What was taken last has been sent.
    pub(crate) fn sent(&self) {
        let mut state = self.lock();
        state.sent = state.taken;
        state.sent_events = state.taken_events;
    }

    /// The producer goes on after it has given way.
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

    /// Gives back the space of a burst that is over.
    fn shrink(&self) {
        let mut state = self.lock();
        if state.run.is_empty() && state.run.capacity() > KEEP_CAPACITY {
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
        self.lock().sent_events
    }

    #[getter]
    fn sent_bytes(&self) -> u64 {
        self.lock().sent
    }

    /// From the making of the buffer until the first event was taken.
    #[getter]
    fn seconds_to_first_event(&self) -> Option<f64> {
        let state = self.lock();
        let first = state.first_event_at?;
        Some((first - state.began_at).as_secs_f64())
    }

    /// Since something was taken, or since there is a buffer.
    #[getter]
    fn seconds_idle(&self) -> f64 {
        let taken_at = self.lock().taken_at;
        taken_at.elapsed().as_secs_f64()
    }

    /// In chunks of a body an event can come in parts.
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
    /// Whether nothing may wait: every event is sent before the next one is asked for.
    pub(crate) const fn is_lockstep(&self) -> bool {
        self.max_pending == 0
    }

    /// Appends the frame of an item, whole or not at all. What comes after the end of the stream is
    /// dropped, valid or not.
    ///
    /// # Errors
    ///
    /// What its encoder raises, with a note which item it was.
    pub(crate) fn append(&self, item: &Bound<'_, PyAny>) -> PyResult<Pushed> {
        if self.lock().closed {
            return Ok(Pushed {
                was_empty: false,
                full: true,
                slice_is_over: true,
            });
        }
        // Not into the buffer itself: it would have to be locked while an encoder runs.
        let mut scratch = bytes::take_scratch();
        let pushed = self
            .encoder
            .get()
            .encode(item, &mut scratch)
            .and_then(|large| Ok(self.append_frame(&scratch, &large)?));
        bytes::keep_scratch(scratch);
        pushed.inspect_err(|error| {
            // Where there are no notes (before 3.11), or something in the way, it goes without.
            let _ = self.note(item, error);
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

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().pending == 0
    }

    /// A buffer that is closed takes nothing any more, so its producer is to look up. One of no
    /// size is full until what was taken has been sent: then producer and client are in lockstep.
    fn is_full(&self, state: &State) -> bool {
        if state.closed {
            true
        } else if self.max_pending == 0 {
            state.pending > 0 || state.taken != state.sent
        } else {
            state.pending >= self.max_pending
        }
    }

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

impl Part {
    fn bytes<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        match &self.bytes {
            Bytes::Run(run) => run,
            Bytes::Large(bytes) => bytes.as_bytes(py),
        }
    }

    fn is_over(&self, py: Python<'_>) -> bool {
        self.start == self.bytes(py).len()
    }

    /// The next bytes to send: all of them, unless they are so many that a client needs its time
    /// for them. Then they end where a line does, or at least with a whole character: what
    /// stands between us and the client may decode every message on its own.
    fn take<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.bytes(py);
        let rest = &bytes[self.start..];
        let length = if rest.len() > MOST_AT_ONCE + MOST_AT_ONCE / 2 {
            wire::end_of_line_or_character(&rest[..MOST_AT_ONCE])
        } else {
            rest.len()
        };
        let body = match &self.bytes {
            Bytes::Large(whole) if length == bytes.len() => whole.bind(py).clone(),
            _ => bytes::copied(py, &rest[..length])?,
        };
        self.start += length;
        Ok(body)
    }
}

impl State {
    fn append(&mut self, frame: &[u8], large: &Large<'_>) -> Result<(), OutOfMemory> {
        if let Some(large) = large {
            self.end_run();
            self.pending += large.as_bytes().len();
            self.parts.push_back(Part {
                bytes: Bytes::Large(large.clone().unbind()),
                start: 0,
                events: 1,
            });
        } else {
            self.run.try_reserve(frame.len()).map_err(|_| OutOfMemory)?;
            self.run.extend_from_slice(frame);
            self.run_events += 1;
            self.pending += frame.len();
        }
        self.pending_events += 1;
        Ok(())
    }

    /// Lets what comes now be a part of its own.
    fn end_run(&mut self) {
        if !self.run.is_empty() {
            self.parts.push_back(Part {
                bytes: Bytes::Run(mem::take(&mut self.run)),
                start: 0,
                events: mem::take(&mut self.run_events),
            });
        }
    }

    fn next_part(&mut self) -> Option<Part> {
        if self.parts.is_empty() {
            self.end_run();
        }
        if !self.opening.is_empty() {
            self.open();
        }
        self.parts.pop_front()
    }

    /// Puts the opening before what is sent first.
    fn open(&mut self) {
        let mut opening = mem::take(&mut self.opening);
        self.pending += opening.len();
        if let Some(Part {
            bytes: Bytes::Run(run),
            ..
        }) = self.parts.front_mut()
        {
            opening.append(run);
            *run = opening;
        } else {
            self.parts.push_front(Part {
                bytes: Bytes::Run(opening),
                start: 0,
                events: 0,
            });
        }
    }

    fn note_taken(&mut self, length: usize) {
        self.pending = self.pending.saturating_sub(length);
        self.taken += length as u64;
        self.taken_at = Instant::now();
    }

    fn note_tail(&mut self, body: &[u8]) {
        let new = body.len().min(self.tail.len());
        self.tail.rotate_left(new);
        let from = self.tail.len() - new;
        self.tail[from..].copy_from_slice(&body[body.len() - new..]);
    }

    fn keep_space_of(&mut self, part: Part) {
        if let Bytes::Run(mut run) = part.bytes
            && run.capacity() > self.run.capacity()
            && self.run.is_empty()
        {
            run.clear();
            self.run = run;
        }
    }
}

//! `LogReader`: what one stream takes from logs. To the outlet it is what an `EventBuffer` is.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::event_log::{EventLog, Read};
use super::position;
use crate::bytes;
use crate::part::Part;
use crate::progress::Progress;
use crate::pump::DirectSend;
use crate::sender::{Pending, Sender};

/// Takes the frames of logs for one stream, from a cursor on.
#[pyclass(frozen, weakref, module = "fastapi_sse_fast._core")]
pub(crate) struct LogReader {
    logs: Vec<Py<EventLog>>,
    most_bytes: usize,
    with_ids: bool,
    /// Called where frames are missing, with the reason, the position before them, their number if
    /// it is known, and the position after them. Returns the frames that report the gap, and whether
    /// the stream ends after them; or `None`, if these are passed to `report` later. It must not
    /// refer to the reader, which would be a reference cycle.
    gap: Py<PyAny>,
    state: Mutex<State>,
}

struct State {
    /// Known while the reader is attached.
    sender: Option<Arc<Sender>>,
    /// The epoch that each log had when the reader saw it last.
    epochs: Vec<String>,
    /// The offset of the last frame of each log that was taken.
    cursors: Vec<u64>,
    /// The log that is looked at first the next time.
    turn: usize,
    /// What is sent before anything from the logs, the last one first: the rest of a large frame,
    /// the opening, gaps.
    parts: Vec<Part>,
    /// By which numbers the logs know the reader.
    numbers: Vec<u64>,
    progress: Progress,
    /// The bytes that were taken last end inside an event.
    mid_event: bool,
    /// What follows the parts.
    next: Next,
    /// The exception to raise instead of reading on.
    failure: Option<Py<PyAny>>,
}

/// What a reader does when it has no parts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Read,
    /// Wait until a gap is reported.
    Wait,
    End,
    /// Nothing: the parts were dropped, too.
    Closed,
}

#[pymethods]
impl LogReader {
    #[new]
    #[pyo3(signature = (logs, positions, /, *, most_bytes, with_ids, gap))]
    fn new(
        logs: Vec<Py<EventLog>>,
        positions: Vec<(String, u64)>,
        most_bytes: usize,
        with_ids: bool,
        gap: Py<PyAny>,
    ) -> PyResult<Self> {
        if logs.len() != positions.len() || logs.is_empty() {
            return Err(PyValueError::new_err(
                "a reader needs a position in each log",
            ));
        }
        let (epochs, cursors) = positions.into_iter().unzip();
        Ok(Self {
            logs,
            most_bytes,
            with_ids,
            gap,
            state: Mutex::new(State {
                sender: None,
                epochs,
                cursors,
                turn: 0,
                parts: Vec::new(),
                numbers: Vec::new(),
                progress: Progress::new(),
                mid_event: false,
                next: Next::Read,
                failure: None,
            }),
        })
    }

    /// Send bytes before everything else.
    #[pyo3(signature = (opening, /))]
    fn open_with(&self, opening: Vec<u8>) {
        if !opening.is_empty() {
            self.lock().parts.push(Part::run(opening, 0));
        }
    }

    /// Have the logs call this reader when they have something new.
    #[pyo3(signature = (outlet, /))]
    fn attach(slf: &Bound<'_, Self>, outlet: Py<PyAny>) {
        let reader = slf.get();
        reader.lock().sender = Some(Arc::new(Sender::new(outlet)));
        let attach = |log: &Py<EventLog>| log.get().attach(slf.clone().unbind());
        let numbers = reader.logs.iter().map(attach).collect();
        reader.lock().numbers = numbers;
    }

    #[pyo3(signature = (direct, /))]
    fn send_with(&self, direct: Option<Py<DirectSend>>) {
        let sender = self.lock().sender.clone();
        if let Some(sender) = sender {
            sender.send_with(direct);
        }
    }

    pub(crate) fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let taken = self.take_next(py);
        if taken.is_err() {
            // Behind an error there is nothing, as behind that of a generator.
            self.close();
        }
        taken
    }

    pub(crate) fn sent(&self) {
        self.lock().progress.sent();
    }

    /// Take nothing more, and let the logs forget this reader.
    fn close(&self) {
        let (parts, numbers, sender, failure) = {
            let mut state = self.lock();
            state.next = Next::Closed;
            let parts = mem::take(&mut state.parts);
            let numbers = mem::take(&mut state.numbers);
            (parts, numbers, state.sender.take(), state.failure.take())
        };
        for (log, number) in self.logs.iter().zip(numbers) {
            log.get().detach(number);
        }
        drop((parts, sender, failure));
    }

    /// Send what reports a gap, and continue. Nothing is sent in this call, because a task may call
    /// it, and only the event loop may send for another one.
    #[pyo3(signature = (told, ends, /))]
    fn report(&self, py: Python<'_>, told: Vec<u8>, ends: bool) -> PyResult<()> {
        let sender = {
            let mut state = self.lock();
            if state.next == Next::Wait {
                state.next = Next::Read;
                state.reported(told, ends);
            }
            state.sender.clone()
        };
        sender.map_or(Ok(()), |sender| sender.wake(py))
    }

    /// Fail the stream of this reader.
    #[pyo3(signature = (error, /))]
    fn fail(&self, error: Bound<'_, PyAny>) -> PyResult<()> {
        let py = error.py();
        let (sender, before) = {
            let mut state = self.lock();
            let failure = error.clone().unbind();
            (state.sender.clone(), state.failure.replace(failure))
        };
        drop(before);
        sender.map_or(Ok(()), |sender| sender.fail(py, PyErr::from_value(error)))
    }

    /// End the stream behind what is sent next.
    fn end(&self) {
        self.lock().next = Next::End;
    }

    /// Do nothing: frames belong to the logs.
    #[expect(clippy::unused_self, reason = "a method of every buffer")]
    const fn shrink(&self) {}

    #[getter]
    fn position(&self) -> String {
        let state = self.lock();
        position::join(&state.epochs, &state.cursors)
    }

    /// Whether nothing more comes of it, but for what is pending.
    #[getter]
    fn is_over(&self) -> bool {
        let next = self.lock().next;
        match next {
            Next::Read => self.logs.iter().all(|log| log.get().is_over()),
            Next::Wait => false,
            Next::End | Next::Closed => true,
        }
    }

    /// How many events this reader is behind.
    #[getter]
    pub(super) fn lag(&self) -> u64 {
        let cursors = self.lock().cursors.clone();
        let behind = |(log, cursor): (&Py<EventLog>, u64)| log.get().top().saturating_sub(cursor);
        self.logs.iter().zip(cursors).map(behind).sum()
    }

    #[getter]
    fn sent_events(&self) -> u64 {
        self.lock().progress.sent_events()
    }

    #[getter]
    fn sent_bytes(&self) -> u64 {
        self.lock().progress.sent_bytes()
    }

    #[getter]
    fn seconds_to_first_event(&self) -> Option<f64> {
        self.lock().progress.seconds_to_first_event()
    }

    #[getter]
    fn seconds_idle(&self) -> f64 {
        self.lock().progress.seconds_idle()
    }

    /// Whether the bytes that were taken last end inside an event, which is sent in parts.
    #[getter]
    fn mid_event(&self) -> bool {
        self.lock().mid_event
    }

    /// A reader has no producer that could wait.
    #[getter]
    #[expect(clippy::unused_self, reason = "an attribute of every buffer")]
    const fn full(&self) -> bool {
        false
    }

    fn __len__(&self) -> usize {
        usize::try_from(self.pending()).unwrap_or(usize::MAX)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for log in &self.logs {
            visit.call(log)?;
        }
        visit.call(&self.gap)?;
        if let Ok(state) = self.state.try_lock() {
            visit.call(&state.failure)?;
            if let Some(sender) = &state.sender {
                sender.traverse(&visit)?;
            }
        }
        Ok(())
    }
}

impl LogReader {
    /// Send what there is, or have it sent; called by the logs.
    pub(super) fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let sender = self.lock().sender.clone();
        let Some(sender) = sender else {
            return Ok(());
        };
        // If a log or `on_gap` fails, this stream fails, and no other one.
        if let Err(error) = self.follow(py).and_then(|()| sender.flush(py, self)) {
            // The outlet raises it at once if it sleeps, and otherwise when it takes more.
            let failure = error.value(py).clone().into_any().unbind();
            let before = self.lock().failure.replace(failure);
            drop(before);
            return sender.fail(py, error);
        }
        if self.is_over() {
            sender.wake(py)?;
        }
        Ok(())
    }

    fn take_next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        loop {
            let part = self.lock().parts.pop();
            if let Some(part) = part {
                return self.take_part(py, part);
            }
            if !self.read(py)? {
                return Ok(PyBytes::new(py, b""));
            }
        }
    }

    fn take_part<'py>(&self, py: Python<'py>, mut part: Part) -> PyResult<Bound<'py, PyBytes>> {
        let body = part.take(py)?;
        let is_over = part.left() == 0;
        let mut state = self.lock();
        let complete = if is_over { part.events } else { 0 };
        state.mid_event = !is_over;
        state
            .progress
            .taken(body.as_bytes().len(), part.events, complete);
        if !is_over && state.next != Next::Closed {
            state.parts.push(part);
        }
        Ok(body)
    }

    /// Follow the logs into their new epochs, and report events that are missing there.
    fn follow(&self, py: Python<'_>) -> PyResult<()> {
        let failure = self.lock().failure.take();
        if let Some(error) = failure {
            return Err(PyErr::from_value(error.into_bound(py)));
        }
        for (index, log) in self.logs.iter().enumerate() {
            let log = log.get();
            let next = self.lock().next;
            if matches!(next, Next::End | Next::Closed) {
                return Ok(());
            }
            if let Some(error) = log.failure(py)? {
                return Err(error);
            }
            let (requested, gap, position) = {
                let mut state = self.lock();
                if log.is_in(&state.epochs[index]) {
                    continue;
                }
                if next == Next::Wait {
                    return Ok(()); // one gap after the other
                }
                let requested = position::join(&state.epochs, &state.cursors);
                let resumed = log.resume(&state.epochs[index], state.cursors[index]);
                state.epochs[index] = log.epoch();
                // Events that are not kept any more are reported when they are read.
                if let Some(("reset", _)) = resumed.gap {
                    state.cursors[index] = resumed.offset;
                }
                let position = position::join(&state.epochs, &state.cursors);
                (requested, resumed.gap, position)
            };
            if let Some((reason @ "reset", missed)) = gap {
                self.meet_gap(py, reason, requested, missed, position)?;
            }
        }
        Ok(())
    }

    /// Have a gap reported.
    fn meet_gap(
        &self,
        py: Python<'_>,
        reason: &str,
        requested: String,
        missed: Option<u64>,
        position: String,
    ) -> PyResult<()> {
        let told = self.gap.call1(py, (reason, requested, missed, position))?;
        let told: Option<(Vec<u8>, bool)> = told.extract(py)?;
        let mut state = self.lock();
        match told {
            Some((told, ends)) => state.reported(told, ends),
            None if state.next == Next::Read => state.next = Next::Wait,
            None => {}
        }
        Ok(())
    }

    /// Make parts of what the logs have next. Return whether there is anything.
    fn read(&self, py: Python<'_>) -> PyResult<bool> {
        self.follow(py)?;
        let (turn, cursors) = {
            let state = self.lock();
            if !state.parts.is_empty() {
                return Ok(true);
            }
            if state.next != Next::Read {
                return Ok(false);
            }
            (state.turn, state.cursors.clone())
        };
        for index in (turn..self.logs.len()).chain(0..turn) {
            let cursor = cursors[index];
            match self.read_one(py, index, &cursors)? {
                Read::Nothing => {}
                Read::Some((part, last)) => {
                    let mut state = self.lock();
                    state.cursors[index] = last;
                    state.turn = (index + 1) % self.logs.len();
                    state.parts.push(part);
                    return Ok(true);
                }
                Read::Dropped(first) => {
                    let (requested, position) = {
                        let mut state = self.lock();
                        let requested = position::join(&state.epochs, &cursors);
                        state.cursors[index] = first - 1;
                        (requested, position::join(&state.epochs, &state.cursors))
                    };
                    let missed = Some(first - 1 - cursor);
                    self.meet_gap(py, "overflow", requested, missed, position)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn read_one(
        &self,
        py: Python<'_>,
        index: usize,
        cursors: &[u64],
    ) -> PyResult<Read<(Part, u64)>> {
        let log = self.logs[index].get();
        let cursor = cursors[index];
        if self.logs.len() == 1 || !self.with_ids {
            let read = log.read(py, cursor, self.most_bytes, self.with_ids)?;
            return Ok(read.map(|run| {
                (
                    Part::large(run.bytes.into_bound(py), run.last - cursor),
                    run.last,
                )
            }));
        }
        // Each stream has ids of its own, of the positions in all its logs.
        Ok(match log.frames(py, cursor, self.most_bytes) {
            Read::Nothing => Read::Nothing,
            Read::Dropped(first) => Read::Dropped(first),
            Read::Some(frames) => {
                let epochs = self.lock().epochs.clone();
                let mut cursors = cursors.to_vec();
                let mut lines = Vec::with_capacity(frames.len());
                for _ in &frames {
                    cursors[index] += 1;
                    lines.push(format!("id: {}\n", position::join(&epochs, &cursors)));
                }
                let pieces: Vec<_> = lines
                    .iter()
                    .zip(&frames)
                    .flat_map(|(line, frame)| [line.as_bytes(), frame.without_id(py)])
                    .collect();
                let bytes = bytes::concat(py, &pieces)?;
                let count = frames.len() as u64;
                Read::Some((Part::large(bytes, count), cursor + count))
            }
        })
    }

    fn pending(&self) -> u64 {
        let (parts, cursors) = {
            let state = self.lock();
            if state.next == Next::Closed {
                return 0;
            }
            let parts = state.parts.iter().map(|part| part.left() as u64).sum();
            if state.next != Next::Read {
                return parts;
            }
            (parts, state.cursors.clone())
        };
        let after = |(log, cursor): (&Py<EventLog>, u64)| log.get().bytes_after(cursor);
        parts + self.logs.iter().zip(cursors).map(after).sum::<u64>()
    }

    /// Held for copies only, never while Python code can run.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn reported(&mut self, told: Vec<u8>, ends: bool) {
        if ends && self.next == Next::Read {
            self.next = Next::End;
        }
        if !told.is_empty() {
            // Behind the rest of an event that is sent in parts.
            self.parts.insert(0, Part::run(told, 0));
        }
    }
}

impl Pending for LogReader {
    fn is_empty(&self) -> bool {
        self.pending() == 0
    }

    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Self::take(self, py)
    }

    fn sent(&self) {
        Self::sent(self);
    }
}

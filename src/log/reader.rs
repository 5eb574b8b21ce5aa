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
#[pyclass(frozen, module = "fastapi_sse_fast._core")]
pub(crate) struct LogReader {
    logs: Vec<Py<EventLog>>,
    most_bytes: usize,
    with_ids: bool,
    /// Called where frames are missing, with the position before them, their number and the
    /// position after them. Returns the frames that report the gap, and whether the stream ends
    /// after them. It must not refer to the reader, which would be a reference cycle.
    gap: Py<PyAny>,
    state: Mutex<State>,
}

struct State {
    /// Known while the reader is attached.
    sender: Option<Arc<Sender>>,
    /// The offset of the last frame of each log that was taken.
    cursors: Vec<u64>,
    /// The log that is looked at first the next time.
    turn: usize,
    /// What is sent before anything from the logs: the opening, a gap, the rest of a large frame.
    parts: Vec<Part>,
    /// By which numbers the logs know the reader.
    numbers: Vec<u64>,
    progress: Progress,
    /// The bytes that were taken last end inside an event.
    mid_event: bool,
    /// Nothing follows the parts.
    ends: bool,
    closed: bool,
}

#[pymethods]
impl LogReader {
    #[new]
    #[pyo3(signature = (logs, cursors, /, *, most_bytes, with_ids, gap))]
    fn new(
        logs: Vec<Py<EventLog>>,
        cursors: Vec<u64>,
        most_bytes: usize,
        with_ids: bool,
        gap: Py<PyAny>,
    ) -> PyResult<Self> {
        if logs.len() != cursors.len() || logs.is_empty() {
            return Err(PyValueError::new_err(
                "a reader needs a cursor for each log",
            ));
        }
        Ok(Self {
            logs,
            most_bytes,
            with_ids,
            gap,
            state: Mutex::new(State {
                sender: None,
                cursors,
                turn: 0,
                parts: Vec::new(),
                numbers: Vec::new(),
                progress: Progress::new(),
                mid_event: false,
                ends: false,
                closed: false,
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

    pub(crate) fn sent(&self) {
        self.lock().progress.sent();
    }

    /// Take nothing more, and let the logs forget this reader.
    fn close(&self) {
        let (parts, numbers, sender) = {
            let mut state = self.lock();
            state.closed = true;
            let parts = mem::take(&mut state.parts);
            (parts, mem::take(&mut state.numbers), state.sender.take())
        };
        for (log, number) in self.logs.iter().zip(numbers) {
            log.get().detach(number);
        }
        drop((parts, sender));
    }

    /// End the stream behind what is sent next.
    fn end(&self) {
        self.lock().ends = true;
    }

    /// Do nothing: frames belong to the logs.
    #[expect(clippy::unused_self, reason = "a method of every buffer")]
    const fn shrink(&self) {}

    #[getter]
    fn position(&self) -> String {
        let cursors = self.lock().cursors.clone();
        self.text_of(&cursors)
    }

    /// Whether nothing more comes of it, but for what is pending.
    #[getter]
    fn is_over(&self) -> bool {
        let ends = {
            let state = self.lock();
            state.ends || state.closed
        };
        ends || self.logs.iter().all(|log| log.get().is_over())
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
        match self.state.try_lock() {
            Ok(state) => state
                .sender
                .as_ref()
                .map_or(Ok(()), |sender| sender.traverse(&visit)),
            Err(_) => Ok(()),
        }
    }
}

impl LogReader {
    /// Send what there is, or have it sent; called by the logs.
    pub(super) fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let sender = self.lock().sender.clone();
        let Some(sender) = sender else {
            return Ok(());
        };
        // If `on_gap` fails, this stream fails, and no other one.
        if let Err(error) = sender.flush(py, self) {
            return sender.fail(py, error);
        }
        if self.is_over() {
            sender.wake(py)?;
        }
        Ok(())
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
        if !is_over && !state.closed {
            state.parts.push(part);
        }
        Ok(body)
    }

    /// Make parts of what the logs have next. Return whether there is anything.
    fn read(&self, py: Python<'_>) -> PyResult<bool> {
        let (turn, cursors) = {
            let state = self.lock();
            if state.closed || state.ends {
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
                    let requested = self.text_of(&cursors);
                    let position = {
                        let mut state = self.lock();
                        state.cursors[index] = first - 1;
                        state.cursors.clone()
                    };
                    let gap = (requested, first - 1 - cursor, self.text_of(&position));
                    let (told, ends): (Vec<u8>, bool) = self.gap.call1(py, gap)?.extract(py)?;
                    let mut state = self.lock();
                    state.ends |= ends;
                    if !told.is_empty() {
                        state.parts.push(Part::run(told, 0));
                    }
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
                let mut cursors = cursors.to_vec();
                let mut lines = Vec::with_capacity(frames.len());
                for _ in &frames {
                    cursors[index] += 1;
                    lines.push(format!("id: {}\n", self.text_of(&cursors)));
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

    fn text_of(&self, cursors: &[u64]) -> String {
        let mut text = String::new();
        for (log, cursor) in self.logs.iter().zip(cursors) {
            if !text.is_empty() {
                text.push('~');
            }
            position::write(&mut text, log.get().epoch(), *cursor);
        }
        text
    }

    fn pending(&self) -> u64 {
        let (parts, cursors) = {
            let state = self.lock();
            if state.closed {
                return 0;
            }
            let parts = state.parts.iter().map(|part| part.left() as u64).sum();
            if state.ends {
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

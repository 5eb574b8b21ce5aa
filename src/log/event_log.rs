//! `EventLog`: the frames of a channel or a run, and who reads them.

use std::collections::BTreeMap;
use std::mem;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::position;
use super::reader::LogReader;
use super::ring::{After, Ring};
use super::split;
use crate::bytes;

/// How long readers are served before other tasks of the event loop run.
const SLICE: Duration = Duration::from_millis(1);

/// The frames of a channel or a run, from the oldest that is kept to the newest.
#[pyclass(frozen, module = "fastapi_sse_fast._core")]
pub(crate) struct EventLog {
    call_soon: Py<PyAny>,
    state: Mutex<State>,
}

struct State {
    epoch: String,
    /// The epochs before this one, each with the last offset that is the same event in both.
    earlier: Vec<(String, u64)>,
    ring: Ring<Frame>,
    /// The beginning of an event that is appended in parts.
    rest: Vec<u8>,
    is_over: bool,
    /// The exception that all readers fail with.
    failure: Option<Py<PyAny>>,
    readers: BTreeMap<u64, Py<LogReader>>,
    next_reader: u64,
    /// When the last reader was detached, or when the log was made.
    unread_since: Instant,
    delivery: Delivery,
    /// All readers have been served up to this event. Known while a delivery is due.
    delivered: u64,
    /// The newest event when the current pass over the readers was begun.
    pass_top: u64,
    /// What a reader has taken last: the next one is most often at the same cursor.
    last_read: Option<LastRead>,
}

/// A frame with its position, in the bytes that all readers of this log alone are sent.
pub(super) struct Frame {
    bytes: Py<PyBytes>,
    /// Where the frame begins, behind the line of its `id`.
    start: usize,
    /// What readers without ids get instead.
    without_id: Option<Py<PyBytes>>,
}

struct LastRead {
    cursor: u64,
    most_bytes: usize,
    with_ids: bool,
    run: Run,
}

/// Frames that follow each other, joined.
pub(super) struct Run {
    pub(super) bytes: Py<PyBytes>,
    /// The offset of the last frame.
    pub(super) last: u64,
}

/// Where a reader continues from a position.
pub(super) struct Resumed {
    pub(super) offset: u64,
    /// Why events are missing before the next one, if they are, and how many.
    pub(super) gap: Option<(&'static str, Option<u64>)>,
}

/// What a reader gets for its cursor.
pub(super) enum Read<T> {
    Nothing,
    /// Frames are missing; the first that can be had is at this offset.
    Dropped(u64),
    Some(T),
}

impl<T> Read<T> {
    pub(super) fn map<U>(self, function: impl FnOnce(T) -> U) -> Read<U> {
        match self {
            Self::Nothing => Read::Nothing,
            Self::Dropped(first) => Read::Dropped(first),
            Self::Some(read) => Read::Some(function(read)),
        }
    }
}

#[derive(Clone, Copy)]
enum Delivery {
    Idle,
    /// The loop has been asked to call `deliver`, which goes on behind this reader.
    Due {
        behind: Option<u64>,
        again: bool,
    },
}

#[pymethods]
impl EventLog {
    #[new]
    #[pyo3(signature = (epoch, /, *, most, call_soon, top=0, earlier=Vec::new()))]
    fn new(
        epoch: String,
        most: usize,
        call_soon: Py<PyAny>,
        top: u64,
        earlier: Vec<(String, u64)>,
    ) -> PyResult<Self> {
        if most == 0 {
            return Err(PyValueError::new_err("a log must keep one frame at least"));
        }
        Ok(Self {
            call_soon,
            state: Mutex::new(State {
                epoch,
                earlier,
                ring: Ring::new(most, top),
                rest: Vec::new(),
                is_over: false,
                failure: None,
                readers: BTreeMap::new(),
                next_reader: 0,
                unread_since: Instant::now(),
                delivery: Delivery::Idle,
                delivered: top,
                pass_top: top,
                last_read: None,
            }),
        })
    }

    #[pyo3(signature = (frames, /))]
    fn append(slf: &Bound<'_, Self>, frames: &[u8]) -> PyResult<u64> {
        let py = slf.py();
        let log = slf.get();
        // No other thread appends in the meantime: the owner of a log is one event loop.
        let mut joined = mem::take(&mut log.lock().rest);
        let frames = if joined.is_empty() {
            frames
        } else {
            joined.extend_from_slice(frames);
            &joined
        };
        let (events, rest) = split::events(frames)?;
        let (epoch, mut offset) = log.newest();
        let mut made = Vec::with_capacity(events.len());
        for event in events {
            offset += 1;
            made.push(Frame::new(py, &epoch, offset, event, None)?);
        }
        let dropped = {
            let mut state = log.lock();
            if state.is_over {
                return Err(PyValueError::new_err("the log has ended"));
            }
            state.rest = rest.to_vec();
            state.push(py, made)
        };
        drop(dropped);
        Self::deliver_soon(slf)?;
        Ok(offset)
    }

    #[pyo3(signature = (frame=None, *, without_id=None))]
    fn end(
        slf: &Bound<'_, Self>,
        frame: Option<&[u8]>,
        without_id: Option<Py<PyBytes>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let log = slf.get();
        let (epoch, top) = log.newest();
        let last = match frame {
            Some(frame) => Some(Frame::new(py, &epoch, top + 1, frame, without_id)?),
            None => None,
        };
        let dropped = {
            let mut state = log.lock();
            if state.is_over {
                return Ok(());
            }
            state.is_over = true;
            state.rest = Vec::new();
            state.push(py, last)
        };
        drop(dropped);
        Self::deliver_soon(slf)
    }

    #[pyo3(signature = (frames, /))]
    fn prepend(&self, py: Python<'_>, frames: Vec<Py<PyBytes>>) -> PyResult<()> {
        let (epoch, mut offset) = {
            let state = self.lock();
            (state.epoch.clone(), state.ring.first())
        };
        let mut made = Vec::with_capacity(frames.len());
        for frame in frames.iter().rev() {
            if offset <= 1 {
                break;
            }
            offset -= 1;
            made.push(Frame::new(py, &epoch, offset, frame.as_bytes(py), None)?);
        }
        let unused: Vec<_> = {
            let mut state = self.lock();
            made.into_iter()
                .filter_map(|frame| {
                    let size = frame.bytes.as_bytes(py).len();
                    state.ring.push_front(frame, size)
                })
                .collect()
        };
        drop(unused);
        Ok(())
    }

    #[pyo3(signature = (epoch, top, /, *, earlier=Vec::new()))]
    fn restart(
        slf: &Bound<'_, Self>,
        epoch: String,
        top: u64,
        earlier: Vec<(String, u64)>,
    ) -> PyResult<()> {
        let dropped = {
            let mut state = slf.get().lock();
            state.epoch = epoch;
            state.earlier = earlier;
            state.rest = Vec::new();
            state.delivered = top;
            state.pass_top = top;
            let frames: Vec<_> = state.ring.restart(top).collect();
            (frames, state.last_read.take())
        };
        drop(dropped);
        Self::deliver_soon(slf)
    }

    #[pyo3(signature = (error, /))]
    fn fail(slf: &Bound<'_, Self>, error: Py<PyAny>) -> PyResult<()> {
        let before = slf.get().lock().failure.replace(error);
        drop(before);
        Self::deliver_soon(slf)
    }

    #[pyo3(name = "resume", signature = (epoch, offset, /))]
    fn py_resume(&self, epoch: &str, offset: u64) -> (u64, Option<&'static str>, Option<u64>) {
        let resumed = self.resume(epoch, offset);
        let (reason, missed) = resumed.gap.unzip();
        (resumed.offset, reason, missed.flatten())
    }

    fn deliver(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let log = slf.get();
        let end = Instant::now() + SLICE;
        while let Some(reader) = log.next_to_deliver(py) {
            if let Err(error) = reader.get().flush(py) {
                log.lock().delivery = Delivery::Idle;
                return Err(error);
            }
            if Instant::now() >= end {
                return Self::call_deliver_soon(slf);
            }
        }
        Ok(())
    }

    #[pyo3(signature = (offset=None))]
    fn position(&self, offset: Option<u64>) -> String {
        let (epoch, top) = self.newest();
        let mut text = String::new();
        position::write(&mut text, &epoch, offset.unwrap_or(top));
        text
    }

    #[getter]
    pub(super) fn epoch(&self) -> String {
        self.lock().epoch.clone()
    }

    #[getter]
    fn earlier(&self) -> Vec<(String, u64)> {
        self.lock().earlier.clone()
    }

    /// How many events have been appended since all readers were served.
    #[getter]
    fn undelivered(&self) -> u64 {
        let state = self.lock();
        match state.delivery {
            Delivery::Idle => 0,
            Delivery::Due { .. } => state.ring.top() - state.delivered,
        }
    }

    #[getter]
    fn first(&self) -> u64 {
        self.lock().ring.first()
    }

    #[getter]
    pub(super) fn top(&self) -> u64 {
        self.lock().ring.top()
    }

    #[getter]
    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// How many events the slowest reader is behind.
    #[getter]
    fn lag(&self, py: Python<'_>) -> u64 {
        let readers: Vec<_> = {
            let state = self.lock();
            state
                .readers
                .values()
                .map(|reader| reader.clone_ref(py))
                .collect()
        };
        readers
            .iter()
            .map(|reader| reader.get().lag())
            .max()
            .unwrap_or(0)
    }

    #[getter]
    fn readers(&self) -> usize {
        self.lock().readers.len()
    }

    #[getter]
    fn seconds_unread(&self) -> f64 {
        let state = self.lock();
        if state.readers.is_empty() {
            state.unread_since.elapsed().as_secs_f64()
        } else {
            0.0
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(state) = self.state.try_lock() {
            for reader in state.readers.values() {
                visit.call(reader)?;
            }
            visit.call(&state.failure)?;
        }
        visit.call(&self.call_soon)
    }
}

impl EventLog {
    fn newest(&self) -> (String, u64) {
        let state = self.lock();
        (state.epoch.clone(), state.ring.top())
    }

    /// Return where a reader continues from a position.
    pub(super) fn resume(&self, epoch: &str, offset: u64) -> Resumed {
        let state = self.lock();
        let oldest = state.ring.first() - 1;
        if epoch != state.epoch {
            let kept = state.earlier.iter().find(|(earlier, _)| earlier == epoch);
            match kept {
                Some((_, until)) if offset <= *until => {}
                _ => {
                    return Resumed {
                        offset: kept.map_or(oldest, |(_, until)| oldest.max(*until)),
                        gap: Some(("reset", None)),
                    };
                }
            }
        }
        if offset > state.ring.top() {
            Resumed {
                offset: state.ring.top(),
                gap: Some(("unknown", None)),
            }
        } else if offset < oldest {
            Resumed {
                offset: oldest,
                gap: Some(("trimmed", Some(oldest - offset))),
            }
        } else {
            Resumed { offset, gap: None }
        }
    }

    /// Return a new exception for one reader, if the log has failed.
    ///
    /// An exception that several streams raised would have all their frames in its traceback.
    pub(super) fn failure(&self, py: Python<'_>) -> PyResult<Option<PyErr>> {
        let Some(error) = self
            .lock()
            .failure
            .as_ref()
            .map(|error| error.clone_ref(py).into_bound(py))
        else {
            return Ok(None);
        };
        let args = error.getattr(intern!(py, "args"))?.cast_into::<PyTuple>()?;
        Ok(Some(PyErr::from_value(error.get_type().call1(args)?)))
    }

    /// Whether the log is still in the epoch that a reader knows.
    pub(super) fn is_in(&self, epoch: &str) -> bool {
        self.lock().epoch == epoch
    }

    fn deliver_soon(slf: &Bound<'_, Self>) -> PyResult<()> {
        {
            let mut state = slf.get().lock();
            if state.readers.is_empty() {
                return Ok(());
            }
            if let Delivery::Due { again, .. } = &mut state.delivery {
                *again = true;
                return Ok(());
            }
            state.delivery = Delivery::Due {
                behind: None,
                again: false,
            };
        }
        Self::call_deliver_soon(slf)
    }

    fn call_deliver_soon(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let deliver = slf.getattr(intern!(py, "deliver"))?;
        let called = slf.get().call_soon.bind(py).call1((deliver,));
        if called.is_err() {
            slf.get().lock().delivery = Delivery::Idle;
        }
        called.map(drop)
    }

    fn next_to_deliver(&self, py: Python<'_>) -> Option<Py<LogReader>> {
        let mut state = self.lock();
        let Delivery::Due { behind, again } = state.delivery else {
            return None;
        };
        let State { readers, ring, .. } = &mut *state;
        let after = behind.map_or(Unbounded, Excluded);
        let mut again = again;
        let mut next = readers.range((after, Unbounded)).next();
        let mut served = None;
        if next.is_none() && again {
            again = false;
            served = Some(ring.top());
            next = readers.iter().next();
        }
        let next = next.map(|(number, reader)| (*number, reader.clone_ref(py)));
        state.delivery = Delivery::Idle;
        if let Some((number, _)) = &next {
            state.delivery = Delivery::Due {
                behind: Some(*number),
                again,
            };
        }
        if let Some(top) = served {
            state.delivered = mem::replace(&mut state.pass_top, top);
        }
        next.map(|(_, reader)| reader)
    }

    pub(super) fn attach(&self, reader: Py<LogReader>) -> u64 {
        let mut state = self.lock();
        let number = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(number, reader);
        number
    }

    pub(super) fn detach(&self, number: u64) {
        let reader = {
            let mut state = self.lock();
            state.unread_since = Instant::now();
            state.readers.remove(&number)
        };
        drop(reader);
    }

    pub(super) fn bytes_after(&self, cursor: u64) -> u64 {
        self.lock().ring.bytes_after(cursor)
    }

    /// Read frames after a cursor, as many as are sent at once, joined.
    pub(super) fn read(
        &self,
        py: Python<'_>,
        cursor: u64,
        most_bytes: usize,
        with_ids: bool,
    ) -> PyResult<Read<Run>> {
        if let Some(last) = &self.lock().last_read
            && (last.cursor, last.most_bytes, last.with_ids) == (cursor, most_bytes, with_ids)
        {
            return Ok(Read::Some(Run {
                bytes: last.run.bytes.clone_ref(py),
                last: last.run.last,
            }));
        }
        let frames = match self.frames(py, cursor, most_bytes) {
            Read::Some(frames) => frames,
            Read::Nothing => return Ok(Read::Nothing),
            Read::Dropped(first) => return Ok(Read::Dropped(first)),
        };
        let last = cursor + frames.len() as u64;
        let bytes = match &frames[..] {
            [frame] if with_ids => frame.bytes.clone_ref(py),
            frames => {
                let pieces: Vec<_> = frames
                    .iter()
                    .map(|frame| {
                        if with_ids {
                            frame.bytes.as_bytes(py)
                        } else {
                            frame.without_id(py)
                        }
                    })
                    .collect();
                bytes::concat(py, &pieces)?.unbind()
            }
        };
        let read = LastRead {
            cursor,
            most_bytes,
            with_ids,
            run: Run {
                bytes: bytes.clone_ref(py),
                last,
            },
        };
        let before = self.lock().last_read.replace(read);
        drop(before);
        Ok(Read::Some(Run { bytes, last }))
    }

    /// Return the frames after a cursor one by one.
    pub(super) fn frames(
        &self,
        py: Python<'_>,
        cursor: u64,
        most_bytes: usize,
    ) -> Read<Vec<Frame>> {
        match self.lock().ring.after(cursor, most_bytes) {
            After::Nothing => Read::Nothing,
            After::Dropped(first) => Read::Dropped(first),
            After::Frames(frames) => Read::Some(
                frames
                    .into_iter()
                    .map(|frame| frame.clone_ref(py))
                    .collect(),
            ),
        }
    }

    /// Held for copies only, never while Python code can run.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Append frames, and return those that are dropped for them.
    fn push(&mut self, py: Python<'_>, frames: impl IntoIterator<Item = Frame>) -> Vec<Frame> {
        if matches!(self.delivery, Delivery::Idle) {
            self.delivered = self.ring.top();
            self.pass_top = self.delivered;
        }
        frames
            .into_iter()
            .filter_map(|frame| {
                let size = frame.bytes.as_bytes(py).len();
                self.ring.push(frame, size)
            })
            .collect()
    }
}

impl Frame {
    fn new(
        py: Python<'_>,
        epoch: &str,
        offset: u64,
        event: &[u8],
        without_id: Option<Py<PyBytes>>,
    ) -> PyResult<Self> {
        let mut line = String::from("id: ");
        position::write(&mut line, epoch, offset);
        line.push('\n');
        let bytes = bytes::concat(py, &[line.as_bytes(), event])?;
        Ok(Self {
            bytes: bytes.unbind(),
            start: line.len(),
            without_id,
        })
    }

    fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            bytes: self.bytes.clone_ref(py),
            start: self.start,
            without_id: self.without_id.as_ref().map(|bytes| bytes.clone_ref(py)),
        }
    }

    pub(super) fn without_id<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        match &self.without_id {
            Some(bytes) => bytes.as_bytes(py),
            None => &self.bytes.as_bytes(py)[self.start..],
        }
    }
}

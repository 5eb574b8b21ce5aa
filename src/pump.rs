//! `Pump`: an awaitable that runs an async iterator and sends its items in the same step of the
//! task.
//!
//! The task of a stream awaits the pump. Whenever the event loop resumes that task, the pump
//! resumes the iterator, encodes each item that it yields, and asks for the next one. When the
//! iterator has to wait for something, the pump first sends everything that is pending and then
//! passes the iterator's future on to the event loop. So items that are ready at the same time are
//! sent together, and no item waits for another task to run.
//!
//! The pump pauses an iterator that never waits, when the buffer is full or the time slice is over.
//! Otherwise the event loop would not run, and the server would not notice that the client has
//! disconnected.
//!
//! The pump passes futures and exceptions through. The iterator runs in the task that awaits the
//! pump and behaves as in an `async for`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyStopIteration, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::iterator::PySendResult;
use pyo3::types::{PyDict, PyIterator, PyType};

use crate::buffer::EventBuffer;
use crate::sender::Sender;

/// Runs an async iterator and pushes its items to an `EventBuffer`.
///
/// A pump is an awaitable. Its result is `True` if the iterator has paused to let other tasks run;
/// then the pump is awaited again. It is `False` if the iterator has ended.
#[pyclass(frozen, module = "fastapi_sse_fast._core")]
pub(crate) struct Pump {
    anext: Py<PyAny>,
    /// Whether the iterator is an async generator. Its awaitables are iterators, so asking them for
    /// `__await__` is not necessary.
    is_generator: bool,
    buffer: Py<EventBuffer>,
    sender: Sender,
    state: Mutex<State>,
}

struct State {
    /// The step of the iterator that waits for something.
    step: Option<Py<PyIterator>>,
    /// Whether to call `interrupt_source` each time the iterator begins to wait.
    interrupting: bool,
    /// Whether an exception was thrown into the iterator since its last item.
    thrown: bool,
}

/// The value or exception that resumes a step of the iterator.
enum Input<'py> {
    Value(Bound<'py, PyAny>),
    Error(PyErr),
}

/// The outcome of a step of the pump.
enum Outcome<'py> {
    /// The iterator waits for this object, usually a future.
    Waits(Bound<'py, PyAny>),
    /// The iterator has paused to let other tasks run.
    Paused,
    Ended,
}

#[pymethods]
impl Pump {
    #[new]
    #[pyo3(signature = (items, buffer, outlet, /))]
    fn new(items: &Bound<'_, PyAny>, buffer: Py<EventBuffer>, outlet: Py<PyAny>) -> PyResult<Self> {
        static GENERATOR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let py = items.py();
        let generator = GENERATOR.import(py, "types", "AsyncGeneratorType")?;
        Ok(Self {
            anext: items.getattr(intern!(py, "__anext__"))?.unbind(),
            is_generator: items.get_type().is(generator),
            buffer,
            sender: Sender::new(outlet),
            state: Mutex::new(State {
                step: None,
                interrupting: false,
                thrown: false,
            }),
        })
    }

    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.advance(py, Input::Value(py.None().into_bound(py)))
    }

    #[pyo3(signature = (value, /))]
    fn send<'py>(&self, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.advance(value.py(), Input::Value(value))
    }

    #[pyo3(signature = (kind, value=None, traceback=None, /))]
    fn throw<'py>(
        &self,
        py: Python<'py>,
        kind: Bound<'py, PyAny>,
        value: Option<Bound<'py, PyAny>>,
        traceback: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let error = match value {
            Some(value) if kind.is_instance_of::<PyType>() => {
                PyErr::from_value(if value.is_instance(&kind)? {
                    value
                } else {
                    kind.call1((value,))?
                })
            }
            _ => PyErr::from_value(kind),
        };
        if let Some(traceback) = traceback.filter(|traceback| !traceback.is_none()) {
            error.set_traceback(py, Some(traceback.cast_into()?));
        }
        self.advance(py, Input::Error(error))
    }

    /// Close the current step, as closing a coroutine closes what it awaits.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let step = self.lock().step.take();
        match step {
            Some(step) => match step.bind(py).getattr_opt(intern!(py, "close"))? {
                Some(close) => close.call0().map(drop),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// Use an awaitable as the next step. Its result is the next item.
    #[pyo3(signature = (awaitable, /))]
    fn begin(&self, awaitable: Bound<'_, PyAny>) -> PyResult<()> {
        let step = await_iterator(awaitable)?.unbind();
        let before = self.lock().step.replace(step);
        drop(before);
        Ok(())
    }

    /// Send with `direct` from now on, or with the outlet if it is `None`.
    #[pyo3(signature = (direct, /))]
    fn send_with(&self, direct: Option<Py<DirectSend>>) {
        self.sender.send_with(direct);
    }

    /// Whether the iterator waits for something in the middle of a step.
    #[getter]
    fn waits(&self) -> bool {
        self.lock().step.is_some()
    }

    /// Whether an exception was thrown into the iterator since its last item.
    #[getter]
    fn thrown(&self) -> bool {
        self.lock().thrown
    }

    #[getter]
    fn interrupting(&self) -> bool {
        self.lock().interrupting
    }

    #[setter]
    fn set_interrupting(&self, interrupting: bool) {
        self.lock().interrupting = interrupting;
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(state) = self.state.try_lock() {
            visit.call(&state.step)?;
        }
        visit.call(&self.anext)?;
        visit.call(&self.buffer)?;
        self.sender.traverse(&visit)
    }
}

impl Pump {
    fn advance<'py>(&self, py: Python<'py>, input: Input<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.run(py, input) {
            Ok(Outcome::Waits(future)) => Ok(future),
            Ok(Outcome::Paused) => Err(PyStopIteration::new_err(true)),
            Ok(Outcome::Ended) => Err(PyStopIteration::new_err(false)),
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
                // The event loop would take it for the pump's result. A coroutine does the same
                // (PEP 479).
                let raised =
                    PyRuntimeError::new_err("an item or its iterator raised StopIteration");
                raised.set_cause(py, Some(error));
                Err(raised)
            }
            Err(error) => Err(error),
        }
    }

    /// Run the iterator until it waits, pauses or ends.
    fn run<'py>(&self, py: Python<'py>, mut input: Input<'py>) -> PyResult<Outcome<'py>> {
        let buffer = self.buffer.get();
        let (mut step, mut thrown) = {
            let mut state = self.lock();
            state.thrown |= matches!(input, Input::Error(_));
            (state.step.take(), state.thrown)
        };
        buffer.resume();
        loop {
            let current = match step.take() {
                Some(step) => step.into_bound(py),
                None => match input {
                    Input::Value(_) => match self.next_step(py) {
                        Ok(step) => step,
                        Err(error) => return end_of_iteration(py, error),
                    },
                    // No step is under way that the exception could be thrown into.
                    Input::Error(error) => return Err(error),
                },
            };
            match resume(&current, input) {
                Ok(PySendResult::Next(future)) => {
                    let interrupting = {
                        let mut state = self.lock();
                        state.step = Some(current.unbind());
                        state.interrupting
                    };
                    if interrupting {
                        let interrupt = intern!(py, "interrupt_source");
                        self.sender.outlet(py).call_method0(interrupt)?;
                    }
                    self.sender.flush(py, buffer)?;
                    return Ok(Outcome::Waits(future));
                }
                Ok(PySendResult::Return(item)) => {
                    if thrown {
                        thrown = false;
                        self.lock().thrown = false;
                    }
                    let pushed = buffer.append(&item)?;
                    if pushed.slice_is_over || pushed.full {
                        self.sender.flush(py, buffer)?;
                        // In lockstep every event fills the buffer. If it was sent at once, the
                        // iterator may continue.
                        if pushed.slice_is_over || buffer.full() || !buffer.is_lockstep() {
                            return Ok(Outcome::Paused);
                        }
                    }
                    input = Input::Value(py.None().into_bound(py));
                }
                Err(error) => return end_of_iteration(py, error),
            }
        }
    }

    /// Ask the iterator for the next item, as `async for` does.
    fn next_step<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        let awaitable = self.anext.bind(py).call0()?;
        if self.is_generator {
            Ok(awaitable.cast_into()?)
        } else {
            await_iterator(awaitable)
        }
    }

    /// Lock the state. The lock is held only to copy, never while Python code can run.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls the server's `send` in a step of the stream's task, as if the request's task did.
///
/// A middleware may open a cancel scope, a timeout or a lock in its `send`. These belong to the
/// current task, so the current task must be the one that awaits a `send` that has to wait: the
/// request's. asyncio has functions for that: "Switch the current task to the *task* argument. Call
/// the function just before executing a portion of embedded coroutine".
#[pyclass(frozen, module = "fastapi_sse_fast._core")]
pub(crate) struct DirectSend {
    /// The function that sends parts of the body.
    send: Py<PyAny>,
    body_type: Py<PyAny>,
    event_loop: Py<PyAny>,
    request: Py<PyAny>,
    /// The task that runs while this is called, if it is a task.
    stream: Option<Py<PyAny>>,
    /// Runs a function in the `contextvars` context of the sends.
    run: Py<PyAny>,
    switch: Switch,
    /// `None` once the head is being sent.
    head: Mutex<Option<Head>>,
}

/// The ASGI message that starts the response, after the function that sends it.
pub(crate) type Head = (Py<PyAny>, Py<PyAny>);

/// The asyncio functions that set the current task.
enum Switch {
    /// `asyncio.tasks._swap_current_task(loop, task)`, since Python 3.12.
    Swap(Py<PyAny>),
    /// `asyncio.tasks._enter_task(loop, task)` and `_leave_task(loop, task)`.
    Enter { enter: Py<PyAny>, leave: Py<PyAny> },
}

#[pymethods]
impl DirectSend {
    #[new]
    #[pyo3(signature = (send, *, head, body_type, run, request, stream))]
    fn new(
        py: Python<'_>,
        send: Py<PyAny>,
        head: Head,
        body_type: Py<PyAny>,
        run: Py<PyAny>,
        request: Py<PyAny>,
        stream: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let event_loop = py
            .import(intern!(py, "asyncio"))?
            .call_method0(intern!(py, "get_running_loop"))?;
        // They are looked up for every stream, because some packages replace them.
        let tasks = py.import(intern!(py, "asyncio.tasks"))?;
        let switch = match tasks.getattr_opt(intern!(py, "_swap_current_task"))? {
            Some(swap) => Switch::Swap(swap.unbind()),
            None => Switch::Enter {
                enter: tasks.getattr(intern!(py, "_enter_task"))?.unbind(),
                leave: tasks.getattr(intern!(py, "_leave_task"))?.unbind(),
            },
        };
        Ok(Self {
            send,
            body_type,
            run,
            event_loop: event_loop.unbind(),
            request,
            stream,
            switch,
            head: Mutex::new(Some(head)),
        })
    }

    /// Do not send the head: other code sends it.
    fn forget_head(&self) {
        drop(self.take_head());
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(head) = self.head.try_lock() {
            for object in head.iter().flat_map(|(send, message)| [send, message]) {
                visit.call(object)?;
            }
        }
        visit.call(&self.send)?;
        visit.call(&self.run)?;
        visit.call(&self.event_loop)?;
        visit.call(&self.request)?;
        visit.call(&self.stream)
    }
}

/// A `send` that waits, and the object that it waits for.
pub(crate) type Waiting<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>);

/// Call `send` and run it until it waits or returns.
///
/// # Errors
///
/// Whatever `send` raises.
#[pyfunction]
#[pyo3(signature = (send, message, /))]
pub(crate) fn begin_send<'py>(
    send: &Bound<'py, PyAny>,
    message: &Bound<'py, PyAny>,
) -> PyResult<Option<Waiting<'py>>> {
    let send = await_iterator(send.call1((message,))?)?;
    match send.send(&send.py().None().into_bound(send.py()))? {
        PySendResult::Return(_) => Ok(None),
        PySendResult::Next(waits_for) => Ok(Some((send.into_any(), waits_for))),
    }
}

impl DirectSend {
    pub(crate) fn take_head(&self) -> Option<Head> {
        self.head
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Send a part of the body until `send` waits or returns.
    pub(crate) fn begin_body<'py>(
        &self,
        body: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Waiting<'py>>> {
        let py = body.py();
        let message = PyDict::new(py);
        message.set_item(intern!(py, "type"), &self.body_type)?;
        message.set_item(intern!(py, "body"), body)?;
        message.set_item(intern!(py, "more_body"), true)?;
        self.begin(&self.send, &message)
    }

    /// Send an ASGI message until `send` waits or returns.
    pub(crate) fn begin<'py>(
        &self,
        send: &Py<PyAny>,
        message: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Waiting<'py>>> {
        static BEGIN_SEND: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = message.py();
        let begin_send = BEGIN_SEND.get_or_try_init(py, || {
            wrap_pyfunction!(begin_send, py).map(|function| function.into_any().unbind())
        })?;
        let (stream, request) = (self.stream.as_ref(), Some(&self.request));
        self.switch(py, stream, request)?;
        let begun = self.run.bind(py).call1((begin_send, send, message));
        self.switch(py, request, stream)?;
        let begun = begun?;
        if begun.is_none() {
            return Ok(None);
        }
        let (send, waits_for) = begun.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>)>()?;
        Ok(Some((send, waits_for)))
    }

    /// Replace the current task.
    fn switch(
        &self,
        py: Python<'_>,
        from: Option<&Py<PyAny>>,
        to: Option<&Py<PyAny>>,
    ) -> PyResult<()> {
        match &self.switch {
            Switch::Swap(swap) => {
                swap.bind(py).call1((&self.event_loop, to))?;
            }
            Switch::Enter { enter, leave } => {
                if let Some(from) = from {
                    leave.bind(py).call1((&self.event_loop, from))?;
                }
                if let Some(to) = to {
                    enter.bind(py).call1((&self.event_loop, to))?;
                }
            }
        }
        Ok(())
    }
}

/// Return the outcome if `error` is the `StopAsyncIteration` that ends an iterator.
///
/// # Errors
///
/// Any other `error`.
fn end_of_iteration(py: Python<'_>, error: PyErr) -> PyResult<Outcome<'_>> {
    if error.is_instance_of::<PyStopAsyncIteration>(py) {
        Ok(Outcome::Ended)
    } else {
        Err(error)
    }
}

/// Resume a step as `await` does: with `send`, or with `throw` if it has one.
fn resume<'py>(step: &Bound<'py, PyIterator>, input: Input<'py>) -> PyResult<PySendResult<'py>> {
    let py = step.py();
    let error = match input {
        Input::Value(value) => return step.send(&value),
        Input::Error(error) => error,
    };
    let Some(throw) = step.getattr_opt(intern!(py, "throw"))? else {
        return Err(error);
    };
    match throw.call1((error,)) {
        Ok(waits_for) => Ok(PySendResult::Next(waits_for)),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
            let value = error.value(py).getattr(intern!(py, "value"))?;
            Ok(PySendResult::Return(value))
        }
        Err(error) => Err(error),
    }
}

/// Return the iterator that `await awaitable` runs.
///
/// # Errors
///
/// `TypeError` if the object cannot be awaited.
fn await_iterator(awaitable: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyIterator>> {
    static GENERATOR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    const ITERABLE_COROUTINE: u32 = 0x100;
    let py = awaitable.py();
    if let Some(method) = awaitable.getattr_opt(intern!(py, "__await__"))? {
        return match method.call0()?.cast_into() {
            Ok(iterator) => Ok(iterator),
            Err(error) => Err(PyTypeError::new_err(format!(
                "__await__() returned non-iterator of type '{}'",
                error.into_inner().get_type().name()?
            ))),
        };
    }
    // `types.coroutine` marks a generator as awaitable by this flag.
    if awaitable
        .get_type()
        .is(GENERATOR.import(py, "types", "GeneratorType")?)
    {
        let code = awaitable.getattr(intern!(py, "gi_code"))?;
        let flags: u32 = code.getattr(intern!(py, "co_flags"))?.extract()?;
        if flags & ITERABLE_COROUTINE != 0 {
            return Ok(awaitable.cast_into()?);
        }
    }
    Err(PyTypeError::new_err(format!(
        "'{}' object can't be awaited",
        awaitable.get_type().name()?
    )))
}

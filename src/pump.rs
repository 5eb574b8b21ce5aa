//! `Pump`: drives an async iterator by hand, and sends what it yields in the same step of its task.
//!
//! The task of a stream awaits the pump. When the loop resumes that task, the pump resumes the
//! iterator; what is yielded is encoded at once, and the next item is asked for. As soon as the
//! iterator has to wait for something, everything that is pending is sent, and only then is the
//! iterator's own future handed up to the loop. So nothing is sent while there is more to come,
//! and nothing waits for another task.
//!
//! An iterator that never waits gives way to the loop when the buffer was full, or its time is up:
//! only there does a server notice that its client has gone.
//!
//! What it waits for, and what is thrown into it, passes through: the iterator runs in the task
//! that awaits the pump, and sees nothing of it.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{
    PyKeyboardInterrupt, PyRuntimeError, PyStopAsyncIteration, PyStopIteration, PySystemExit,
    PyTypeError,
};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::iterator::PySendResult;
use pyo3::types::{PyDict, PyIterator, PyType};

use crate::buffer::EventBuffer;

/// Drives an async iterator into an `EventBuffer`. An awaitable, whose result is whether the
/// iterator has to give way before it goes on; it is awaited again for as long as it does.
#[pyclass(frozen, module = "fastapi_sse_fast._core")]
pub(crate) struct Pump {
    anext: Py<PyAny>,
    /// Of a generator, so that its awaitables are what they seem to be.
    is_generator: bool,
    buffer: Py<EventBuffer>,
    outlet: Py<PyAny>,
    state: Mutex<State>,
}

struct State {
    /// The iterator's step that waits for something.
    step: Option<Py<PyIterator>>,
    direct: Option<Py<DirectSend>>,
    /// Look, whenever the iterator waits for something else, whether it can be interrupted now.
    interrupting: bool,
}

/// What a step of the iterator is resumed with.
enum Input<'py> {
    Value(Bound<'py, PyAny>),
    Error(PyErr),
}

/// How a step of the pump ends.
enum Output<'py> {
    /// With something that the task has to wait for.
    Waits(Bound<'py, PyAny>),
    GivesWay,
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
            outlet,
            state: Mutex::new(State {
                step: None,
                direct: None,
                interrupting: false,
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

    /// Closes a step that is under way, as a coroutine does that is closed.
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

    /// Begins with another step: what it is awaited for counts as the next item.
    #[pyo3(signature = (awaitable, /))]
    fn begin(&self, awaitable: Bound<'_, PyAny>) -> PyResult<()> {
        let step = iterator_of(awaitable)?.unbind();
        let before = self.lock().step.replace(step);
        drop(before);
        Ok(())
    }

    /// Sends from now on in the steps of the iterator, or no more.
    #[pyo3(signature = (direct, /))]
    fn send_with(&self, direct: Option<Py<DirectSend>>) {
        let before = mem::replace(&mut self.lock().direct, direct);
        drop(before);
    }

    /// Whether the iterator waits for something, in the middle of a step.
    #[getter]
    fn waits(&self) -> bool {
        self.lock().step.is_some()
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
            visit.call(&state.direct)?;
        }
        visit.call(&self.anext)?;
        visit.call(&self.buffer)?;
        visit.call(&self.outlet)
    }
}

impl Pump {
    fn advance<'py>(&self, py: Python<'py>, input: Input<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.run(py, input) {
            Ok(Output::Waits(future)) => Ok(future),
            Ok(Output::GivesWay) => Err(PyStopIteration::new_err(true)),
            Ok(Output::Ended) => Err(PyStopIteration::new_err(false)),
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
                // As in a coroutine (PEP 479): it would look like a result.
                let raised =
                    PyRuntimeError::new_err("an item or its iterator raised StopIteration");
                raised.set_cause(py, Some(error));
                Err(raised)
            }
            Err(error) => Err(error),
        }
    }

    fn run<'py>(&self, py: Python<'py>, mut input: Input<'py>) -> PyResult<Output<'py>> {
        let buffer = self.buffer.get();
        let mut step = self.lock().step.take();
        buffer.resume();
        loop {
            let current = match step.take() {
                Some(step) => step.into_bound(py),
                None => match input {
                    Input::Value(_) => match self.next_step(py) {
                        Ok(step) => step,
                        Err(error) => return ended(py, error),
                    },
                    // Nothing waits that it could be for.
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
                        self.outlet.bind(py).call_method0(interrupt)?;
                    }
                    self.flush(py)?;
                    return Ok(Output::Waits(future));
                }
                Ok(PySendResult::Return(item)) => {
                    let pushed = buffer.append(&item)?;
                    if pushed.slice_is_over || pushed.full {
                        self.flush(py)?;
                        // In lockstep the buffer is full with every event.
                        if pushed.slice_is_over || buffer.full() || !buffer.is_lockstep() {
                            return Ok(Output::GivesWay);
                        }
                    }
                    input = Input::Value(py.None().into_bound(py));
                }
                Err(error) => return ended(py, error),
            }
        }
    }

    /// Asks the iterator for the next item: what `async for` does.
    fn next_step<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        let awaitable = self.anext.bind(py).call0()?;
        if self.is_generator {
            Ok(awaitable.cast_into()?)
        } else {
            iterator_of(awaitable)
        }
    }

    /// Sends what is pending, or has it sent.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let buffer = self.buffer.get();
        if buffer.is_empty() {
            return Ok(());
        }
        let direct = self
            .lock()
            .direct
            .as_ref()
            .map(|direct| direct.clone_ref(py));
        let Some(direct) = direct else {
            self.outlet.bind(py).call_method0(intern!(py, "wake"))?;
            return Ok(());
        };
        let direct = direct.get();
        if let Some((send, head)) = direct.take_head() {
            self.outlet.bind(py).call_method0(intern!(py, "begun"))?;
            if !self.is_sent(py, direct.begin(&send, head.bind(py)))? {
                return Ok(());
            }
        }
        while !buffer.is_empty() {
            let body = buffer.take(py)?;
            if !self.is_sent(py, direct.begin_body(&body))? {
                return Ok(());
            }
            buffer.sent();
        }
        Ok(())
    }

    /// Whether all of a message was sent. If not, that is the outlet's business now.
    fn is_sent(&self, py: Python<'_>, begun: PyResult<Option<Waiting<'_>>>) -> PyResult<bool> {
        let outlet = self.outlet.bind(py);
        match begun {
            Ok(None) => return Ok(true),
            Err(error) if is_for_the_loop(py, &error) => return Err(error),
            Ok(Some(waiting)) => {
                self.send_with(None);
                outlet.call_method1(intern!(py, "hand_over"), waiting)?;
            }
            Err(error) => {
                self.send_with(None);
                outlet.call_method1(intern!(py, "send_failed"), (error,))?;
            }
        }
        Ok(false)
    }

    /// Held for copies only, never while Python code can run.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls the server's `send` in the step of another task, as if the task of the request did.
///
/// `send` belongs to the request: what a middleware opens around it (a scope, a timeout, a lock)
/// belongs to the current task, and that must be the one which goes on with a `send` that waits.
/// asyncio has the functions for it: "Switch the current task to the *task* argument. Call the
/// function just before executing a portion of embedded coroutine".
#[pyclass(frozen, module = "fastapi_sse_fast._core")]
pub(crate) struct DirectSend {
    /// What parts of the body are sent with.
    send: Py<PyAny>,
    body_type: Py<PyAny>,
    event_loop: Py<PyAny>,
    request: Py<PyAny>,
    stream: Py<PyAny>,
    /// Runs a function in the context of the sends.
    run: Py<PyAny>,
    switch: Switch,
    head: Mutex<Option<Head>>,
}

/// What the message that starts the response is sent with, and that message; until it was sent.
type Head = (Py<PyAny>, Py<PyAny>);

enum Switch {
    /// `asyncio.tasks._swap_current_task(loop, task)`, since 3.12.
    Swap(Py<PyAny>),
    Enter {
        enter: Py<PyAny>,
        leave: Py<PyAny>,
    },
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
        stream: Py<PyAny>,
    ) -> PyResult<Self> {
        let event_loop = py
            .import(intern!(py, "asyncio"))?
            .call_method0(intern!(py, "get_running_loop"))?;
        // Looked up for every stream: some replace them.
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

    /// The head is sent by somebody else.
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

/// A `send` that waits, and what for.
type Waiting<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>);

/// Calls `send` and goes on as far as that does without waiting.
///
/// # Errors
///
/// Those of `send`.
#[pyfunction]
#[pyo3(signature = (send, message, /))]
pub(crate) fn begin_send<'py>(
    send: &Bound<'py, PyAny>,
    message: &Bound<'py, PyAny>,
) -> PyResult<Option<Waiting<'py>>> {
    let send = iterator_of(send.call1((message,))?)?;
    match send.send(&send.py().None().into_bound(send.py()))? {
        PySendResult::Return(_) => Ok(None),
        PySendResult::Next(waits_for) => Ok(Some((send.into_any(), waits_for))),
    }
}

impl DirectSend {
    fn take_head(&self) -> Option<Head> {
        self.head
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Sends a part of the body, as far as that goes without waiting.
    fn begin_body<'py>(&self, body: &Bound<'py, PyAny>) -> PyResult<Option<Waiting<'py>>> {
        let py = body.py();
        let message = PyDict::new(py);
        message.set_item(intern!(py, "type"), &self.body_type)?;
        message.set_item(intern!(py, "body"), body)?;
        message.set_item(intern!(py, "more_body"), true)?;
        self.begin(&self.send, &message)
    }

    /// Sends a message, as far as that goes without waiting.
    fn begin<'py>(
        &self,
        send: &Py<PyAny>,
        message: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Waiting<'py>>> {
        static BEGIN_SEND: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = message.py();
        let begin_send = BEGIN_SEND.get_or_try_init(py, || {
            wrap_pyfunction!(begin_send, py).map(|function| function.into_any().unbind())
        })?;
        self.switch(py, &self.stream, &self.request)?;
        let begun = self.run.bind(py).call1((begin_send, send, message));
        self.switch(py, &self.request, &self.stream)?;
        let begun = begun?;
        if begun.is_none() {
            return Ok(None);
        }
        let (send, waits_for) = begun.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>)>()?;
        Ok(Some((send, waits_for)))
    }

    fn switch(&self, py: Python<'_>, from: &Py<PyAny>, to: &Py<PyAny>) -> PyResult<()> {
        match &self.switch {
            Switch::Swap(swap) => {
                swap.bind(py).call1((&self.event_loop, to))?;
            }
            Switch::Enter { enter, leave } => {
                leave.bind(py).call1((&self.event_loop, from))?;
                enter.bind(py).call1((&self.event_loop, to))?;
            }
        }
        Ok(())
    }
}

/// What an iterator raises at its end is no error.
fn ended(py: Python<'_>, error: PyErr) -> PyResult<Output<'_>> {
    if error.is_instance_of::<PyStopAsyncIteration>(py) {
        Ok(Output::Ended)
    } else {
        Err(error)
    }
}

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

/// What `await` iterates.
fn iterator_of(awaitable: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyIterator>> {
    static GENERATOR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    const ITERABLE_COROUTINE: u32 = 0x100;
    let py = awaitable.py();
    if let Some(method) = awaitable.getattr_opt(intern!(py, "__await__"))? {
        return method.call0()?.cast_into().map_err(|error| {
            let class = error.into_inner().get_type();
            PyTypeError::new_err(format!(
                "__await__() returned non-iterator of type '{class}'"
            ))
        });
    }
    // A generator that `types.coroutine` has made awaitable.
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
    let class = awaitable.get_type();
    Err(PyTypeError::new_err(format!(
        "'{class}' object can't be awaited"
    )))
}

/// Whether an error is none of the stream's: it ends the loop.
fn is_for_the_loop(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py)
}

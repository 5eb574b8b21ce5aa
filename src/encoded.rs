//! `EncodedEvent`: a pre-encoded event. It holds only its frame, not the fields that it was made
//! of.

use pyo3::basic::CompareOp;
use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple, PyType};

use crate::bytes;
use crate::event::Fields;
use crate::fallback;
use crate::json::Spelling;
use crate::wire;

#[doc = stub_doc!("EncodedEvent")]
#[pyclass(frozen, module = "fastapi_sse_fast._core")]
pub(crate) struct EncodedEvent {
    frame: Py<PyBytes>,
}

impl EncodedEvent {
    /// Return the event of a frame that is valid already.
    pub(crate) fn of(frame: Bound<'_, PyBytes>) -> Self {
        Self {
            frame: frame.unbind(),
        }
    }

    pub(crate) fn frame<'py>(&self, py: Python<'py>) -> &Bound<'py, PyBytes> {
        self.frame.bind(py)
    }
}

#[pymethods]
impl EncodedEvent {
    #[new]
    #[pyo3(
        signature = (
            *, data=None, raw_data=None, event=None, id=None, retry=None, comment=None,
            json=Spelling::Fastapi
        ),
        text_signature = "(*, data=None, raw_data=None, event=None, id=None, retry=None, \
                          comment=None, json='fastapi')"
    )]
    #[expect(clippy::too_many_arguments, reason = "the fields of an event")]
    fn new<'py>(
        py: Python<'py>,
        data: Option<Bound<'py, PyAny>>,
        raw_data: Option<Bound<'py, PyAny>>,
        event: Option<Bound<'py, PyAny>>,
        id: Option<Bound<'py, PyAny>>,
        retry: Option<Bound<'py, PyAny>>,
        comment: Option<Bound<'py, PyAny>>,
        json: Spelling,
    ) -> PyResult<Self> {
        let fields = Fields {
            data,
            raw_data,
            event,
            id,
            retry,
            comment,
            of_subclass: false,
        };
        bytes::build(py, |out| fields.write_new(py, json, out)).map(Self::of)
    }

    #[doc = stub_doc!("EncodedEvent.from_bytes")]
    #[staticmethod]
    #[pyo3(signature = (frames, /))]
    fn from_bytes(frames: &Bound<'_, PyBytes>) -> PyResult<Self> {
        wire::check_frames(frames.as_bytes())?;
        if frames.is_exact_instance_of::<PyBytes>() {
            return Ok(Self::of(frames.clone()));
        }
        bytes::copy(frames.py(), frames.as_bytes()).map(Self::of)
    }

    #[doc = stub_doc!("EncodedEvent.__bytes__")]
    fn __bytes__(&self, py: Python<'_>) -> Py<PyBytes> {
        self.frame.clone_ref(py)
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.frame.as_bytes(py).len()
    }

    fn __richcmp__(&self, other: &Self, op: CompareOp, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match op {
            CompareOp::Eq | CompareOp::Ne => {
                let frame = self.frame.bind(py);
                frame.rich_compare(&other.frame, op).map(Bound::unbind)
            }
            _ => Ok(py.NotImplemented()),
        }
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.frame.bind(py).hash()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<EncodedEvent {}>", self.frame.bind(py).repr()?))
    }

    fn __reduce__<'py>(
        slf: &Bound<'py, Self>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        let from_bytes = slf.get_type().getattr("from_bytes")?;
        Ok((from_bytes, PyTuple::new(py, [&slf.get().frame])?))
    }

    /// Explain the mistake when a `StreamingResponse` gets an event: it takes the event for text
    /// and calls its `encode`, which does not exist.
    fn __getattr__(slf: &Bound<'_, Self>, name: &str) -> PyResult<Py<PyAny>> {
        let message = match name {
            "encode" => fallback::misplaced_event(slf)?,
            _ => format!("'EncodedEvent' object has no attribute '{name}'"),
        };
        Err(PyAttributeError::new_err(message))
    }

    /// Return a schema, so that annotations may contain the class. FastAPI makes a pydantic field
    /// of the item type in `AsyncIterable[EncodedEvent]`; its JSON schema allows any data.
    #[classmethod]
    #[pyo3(signature = (_source, _handler, /))]
    fn __get_pydantic_core_schema__<'py>(
        cls: &Bound<'py, PyType>,
        _source: &Bound<'py, PyAny>,
        _handler: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let schemas = cls.py().import("pydantic_core")?.getattr("core_schema")?;
        let anything = schemas.call_method0("any_schema")?;
        let instance = schemas.call_method1("is_instance_schema", (cls,))?;
        schemas.call_method1("json_or_python_schema", (anything, instance))
    }
}

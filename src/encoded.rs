//! `EncodedEvent`: an event that is already its frame.

use std::hash::{DefaultHasher, Hash, Hasher};

use pyo3::basic::CompareOp;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple, PyType};

use crate::event::Fields;
use crate::scalar::Spelling;
use crate::wire;

/// A ready frame: encoded once, sent any number of times.
#[pyclass(frozen, module = "fastapi_sse_fast._core")]
pub(crate) struct EncodedEvent {
    frame: Vec<u8>,
}

impl EncodedEvent {
    pub(crate) fn of(mut frame: Vec<u8>) -> Self {
        // Fitting it exactly would often copy it.
        if frame.capacity() > 2 * frame.len() {
            frame.shrink_to_fit();
        }
        Self { frame }
    }

    pub(crate) fn frame(&self) -> &[u8] {
        &self.frame
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
        let mut frame = Vec::new();
        Fields {
            data,
            raw_data,
            event,
            id,
            retry,
            comment,
            of_subclass: false,
        }
        .write_new(py, json, &mut frame)?;
        Ok(Self::of(frame))
    }

    /// Takes bytes that are complete events already, as a relay has them.
    ///
    /// # Errors
    ///
    /// `ValueError`: they are not, or are not UTF-8, or begin with a byte order mark.
    #[staticmethod]
    #[pyo3(signature = (frames, /))]
    fn from_bytes(frames: &Bound<'_, PyBytes>) -> PyResult<Self> {
        let frames = frames.as_bytes();
        wire::check_frames(frames).map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self {
            frame: frames.into(),
        })
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.frame)
    }

    fn __len__(&self) -> usize {
        self.frame.len()
    }

    fn __richcmp__(&self, other: &Self, op: CompareOp, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(match op {
            CompareOp::Eq => (self.frame == other.frame)
                .into_pyobject(py)?
                .to_owned()
                .into_any(),
            CompareOp::Ne => (self.frame != other.frame)
                .into_pyobject(py)?
                .to_owned()
                .into_any(),
            _ => py.NotImplemented().into_bound(py),
        }
        .unbind())
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.frame.hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<EncodedEvent {}>", self.__bytes__(py).repr()?))
    }

    fn __reduce__<'py>(
        slf: &Bound<'py, Self>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        let from_bytes = slf.get_type().getattr("from_bytes")?;
        Ok((from_bytes, PyTuple::new(py, [slf.get().__bytes__(py)])?))
    }

    /// Lets it stand in annotations: FastAPI makes a field of `AsyncIterable[EncodedEvent]`, in
    /// whose schema the data is anything.
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

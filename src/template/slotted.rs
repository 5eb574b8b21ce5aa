//! The data of a template, for what only Python can say of it: see `_slotted.py`.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyDict};

/// An instance of the Python class of this name.
pub(super) struct SlottedData(Py<PyAny>);

impl SlottedData {
    /// # Errors
    ///
    /// `ValueError`: data that no template can be made of.
    pub(super) fn new(data: &Bound<'_, PyAny>, writes_itself: bool) -> PyResult<Self> {
        static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = data.py();
        let class = CLASS.import(py, "fastapi_sse_fast._slotted", "SlottedData")?;
        let options = [("writes_itself", writes_itself)].into_py_dict(py)?;
        Ok(Self(class.call((data,), Some(&options))?.unbind()))
    }

    pub(super) fn of(object: Bound<'_, PyAny>) -> Self {
        Self(object.unbind())
    }

    pub(super) fn object(&self) -> &Py<PyAny> {
        &self.0
    }

    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py))
    }

    /// What is encoded for the template.
    pub(super) fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.bind(py).getattr(intern!(py, "data"))
    }

    /// Whether FastAPI's encoder writes the value of each slot alone.
    pub(super) fn is_plain(&self, py: Python<'_>) -> PyResult<bool> {
        self.0.bind(py).getattr(intern!(py, "is_plain"))?.extract()
    }

    /// Its slots by name: whether each can learn which scalars may be written in place.
    pub(super) fn slots(&self, py: Python<'_>) -> PyResult<Vec<(String, bool)>> {
        let slots = self.0.bind(py).getattr(intern!(py, "slots"))?;
        slots.cast::<PyDict>()?.items().extract()
    }

    /// A copy with values in place of their slots.
    pub(super) fn filled<'py>(&self, values: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
        let py = values.py();
        let object = self.0.bind(py);
        object.call_method1(intern!(py, "filled"), (values,))
    }

    /// Values as they are now, whatever becomes of them.
    ///
    /// # Errors
    ///
    /// `ValueError`: an iterator.
    pub(super) fn kept<'py>(&self, values: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
        let py = values.py();
        let kept = self
            .0
            .bind(py)
            .call_method1(intern!(py, "kept"), (values,))?;
        Ok(kept.cast_into()?)
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}

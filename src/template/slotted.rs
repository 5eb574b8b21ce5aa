//! `SlottedData`: the data of a template. This is a thin wrapper of the Python class of that name
//! in `_slotted.py`.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyDict};

/// An instance of the Python class `SlottedData`.
pub(super) struct SlottedData(Py<PyAny>);

impl SlottedData {
    /// Find the slots of `data`. `writes_itself` says whether it has a `model_dump_json` method.
    ///
    /// # Errors
    ///
    /// `ValueError` if there can be no template of the data.
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

    /// Return the data to encode for the template, with placeholders in it.
    pub(super) fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.bind(py).getattr(intern!(py, "data"))
    }

    /// Return whether FastAPI's encoder writes the value of each slot regardless of the values
    /// around it.
    pub(super) fn is_plain(&self, py: Python<'_>) -> PyResult<bool> {
        self.0.bind(py).getattr(intern!(py, "is_plain"))?.extract()
    }

    /// Return the names of the slots, each with whether the slot can learn which scalars may be
    /// written in place.
    pub(super) fn slots(&self, py: Python<'_>) -> PyResult<Vec<(String, bool)>> {
        let slots = self.0.bind(py).getattr(intern!(py, "slots"))?;
        slots.cast::<PyDict>()?.items().extract()
    }

    /// Return a copy of the data with the values in place of their slots.
    pub(super) fn filled<'py>(&self, values: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
        let py = values.py();
        let object = self.0.bind(py);
        object.call_method1(intern!(py, "filled"), (values,))
    }

    /// Return copies of the values, so that later changes to them have no effect.
    ///
    /// # Errors
    ///
    /// `ValueError` for an iterator, which can be encoded only once.
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

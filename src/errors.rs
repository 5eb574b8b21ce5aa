//! The Python exceptions for the errors of the modules that do not depend on Python.

use pyo3::PyErr;
use pyo3::exceptions::{PyMemoryError, PyValueError};

use crate::log::split::HasId;
use crate::output::OutOfMemory;
use crate::wire::{FieldError, FrameError};

impl From<FieldError> for PyErr {
    fn from(error: FieldError) -> Self {
        PyValueError::new_err(error.to_string())
    }
}

impl From<FrameError> for PyErr {
    fn from(error: FrameError) -> Self {
        PyValueError::new_err(error.to_string())
    }
}

impl From<OutOfMemory> for PyErr {
    fn from(error: OutOfMemory) -> Self {
        PyMemoryError::new_err(error.to_string())
    }
}

impl From<HasId> for PyErr {
    fn from(error: HasId) -> Self {
        PyValueError::new_err(error.to_string())
    }
}

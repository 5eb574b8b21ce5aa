//! Walking a dict that other code may change meanwhile.

#[cfg(not(Py_GIL_DISABLED))]
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
#[cfg(not(Py_GIL_DISABLED))]
use pyo3::types::dict::BoundDictIterator;
#[cfg(Py_GIL_DISABLED)]
use pyo3::types::list::BoundListIterator;

/// The items of a dict, ending in an error where `PyO3`'s own iterator would panic: when the
/// dict changes while it is walked, as an encoder called for one of its values may do.
pub(crate) struct Items<'py> {
    #[cfg(not(Py_GIL_DISABLED))]
    dict: Bound<'py, PyDict>,
    #[cfg(not(Py_GIL_DISABLED))]
    iter: BoundDictIterator<'py>,
    /// Without a GIL another thread can change the dict between a check and the step after it.
    #[cfg(Py_GIL_DISABLED)]
    iter: BoundListIterator<'py>,
    #[cfg(not(Py_GIL_DISABLED))]
    remaining: usize,
    #[cfg(not(Py_GIL_DISABLED))]
    len: usize,
}

#[cfg(not(Py_GIL_DISABLED))]
impl<'py> Items<'py> {
    pub(crate) fn of(dict: &Bound<'py, PyDict>) -> Self {
        let len = dict.len();
        Self {
            dict: dict.clone(),
            iter: dict.iter(),
            remaining: len,
            len,
        }
    }
}

#[cfg(not(Py_GIL_DISABLED))]
impl<'py> Iterator for Items<'py> {
    type Item = PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)>;

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "it is the loop of the JSON writer")]
    fn next(&mut self) -> Option<Self::Item> {
        if self.dict.len() != self.len {
            // Ends the iteration after this error.
            self.len = self.dict.len();
            self.remaining = 0;
            return Some(Err(changed("changed size")));
        }
        if self.remaining == 0 {
            return None;
        }
        self.remaining -= 1;
        match self.iter.next() {
            Some(item) => Some(Ok(item)),
            None => Some(Err(changed("keys changed"))),
        }
    }
}

#[cfg(not(Py_GIL_DISABLED))]
#[cold]
fn changed(what: &str) -> PyErr {
    PyRuntimeError::new_err(format!("dictionary {what} during iteration"))
}

#[cfg(Py_GIL_DISABLED)]
impl<'py> Items<'py> {
    pub(crate) fn of(dict: &Bound<'py, PyDict>) -> Self {
        Self {
            iter: dict.items().into_iter(),
        }
    }
}

#[cfg(Py_GIL_DISABLED)]
impl<'py> Iterator for Items<'py> {
    type Item = PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.iter.next().map(|item| item.extract())
    }
}

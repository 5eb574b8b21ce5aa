//! pydantic models that serialize the usual way: their serializer is called without the Python
//! method around it.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyBytes, PyDict};

use crate::class;

/// What `model.model_dump(mode="json", by_alias=True)` gives, as `jsonable_encoder` calls it.
/// `None` where `value` is no model, or one with a `model_dump` of its own.
///
/// # Errors
///
/// What the serializer raises.
pub(crate) fn dumped<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    static KEYWORDS: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let py = value.py();
    let methods = Methods::of(py)?;
    if !class::has_base(&value.get_type(), &methods.model) {
        return Ok(None);
    }
    let Some(dump) = value.getattr_opt(intern!(py, "model_dump"))? else {
        return Ok(None);
    };
    let Some(model) = model_of(&dump, &methods.dump)? else {
        return Ok(None);
    };
    let keywords = KEYWORDS.get_or_try_init(py, || {
        let by_alias = [("by_alias", true)].into_py_dict(py)?;
        by_alias.set_item("mode", "json")?;
        PyResult::Ok(by_alias.unbind())
    })?;
    let serialize = serializer(&model)?.getattr(intern!(py, "to_python"))?;
    serialize.call((model,), Some(keywords.bind(py))).map(Some)
}

/// The bytes of what `model_dump_json()` returns, a method of a model. `None` where it is not
/// `BaseModel`'s.
///
/// # Errors
///
/// What the serializer raises.
pub(crate) fn dumped_json<'py>(
    model_dump_json: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let py = model_dump_json.py();
    let methods = Methods::of(py)?;
    let Some(model) = model_of(model_dump_json, &methods.dump_json)? else {
        return Ok(None);
    };
    let keywords = methods
        .json_keywords
        .as_ref()
        .map(|keywords| keywords.bind(py));
    let json = serializer(&model)?.call_method(intern!(py, "to_json"), (model,), keywords)?;
    Ok(Some(json.cast_into()?))
}

/// Notes `BaseModel`'s own methods, before anybody replaces them.
///
/// # Errors
///
/// There is no pydantic.
pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    Methods::of(py).map(drop)
}

/// `BaseModel`'s own methods, to tell a model that overrides them.
struct Methods {
    model: Py<PyAny>,
    dump: Py<PyAny>,
    dump_json: Py<PyAny>,
    /// Before pydantic 2.11 the method's default for `by_alias` is not the serializer's.
    json_keywords: Option<Py<PyDict>>,
}

impl Methods {
    fn of(py: Python<'_>) -> PyResult<&Self> {
        static METHODS: PyOnceLock<Methods> = PyOnceLock::new();
        METHODS.get_or_try_init(py, || {
            let model = py.import("pydantic")?.getattr("BaseModel")?;
            let dump_json = model.getattr("model_dump_json")?;
            let by_alias = dump_json.getattr("__kwdefaults__")?.get_item("by_alias")?;
            let json_keywords = (!by_alias.is_none())
                .then(|| [("by_alias", by_alias)].into_py_dict(py))
                .transpose()?
                .map(Bound::unbind);
            Ok(Self {
                dump: model.getattr("model_dump")?.unbind(),
                dump_json: dump_json.unbind(),
                json_keywords,
                model: model.unbind(),
            })
        })
    }
}

/// The model that `method` is bound to, if it is `own`. Asked for on the class, a method would
/// cost twice as much: there pydantic's metaclass answers.
fn model_of<'py>(
    method: &Bound<'py, PyAny>,
    own: &Py<PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = method.py();
    match method.getattr_opt(intern!(py, "__func__"))? {
        Some(function) if function.is(own) => method.getattr(intern!(py, "__self__")).map(Some),
        _ => Ok(None),
    }
}

fn serializer<'py>(model: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    model.getattr(intern!(model.py(), "__pydantic_serializer__"))
}

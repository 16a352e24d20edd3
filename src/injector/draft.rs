//! A pod that is being changed, and the JSON Patch (RFC 6902) that says how.

use serde_json::{Map, Value as Json, json};

use crate::config::below;

/// Every change is made to the pod at hand as well, so that a later one sees it.
pub struct Draft {
    object: Json,
    operations: Vec<Json>,
}

impl Draft {
    pub fn of(object: &Json) -> Self {
        Self { object: object.clone(), operations: Vec::new() }
    }

    pub fn into_operations(self) -> Vec<Json> {
        self.operations
    }

    /// Sets a member of the object at that pointer, which is made where it is missing.
    pub fn put(&mut self, pointer: &str, key: &str, value: Json) {
        self.make(pointer, json!({}));
        if let Some(members) = self.object.pointer_mut(pointer).and_then(Json::as_object_mut) {
            members.insert(key.to_owned(), value.clone());
            self.operations.push(json!({ "op": "add", "path": below(pointer, key), "value": value }));
        }
    }

    /// Removes a member that may be there.
    pub fn remove(&mut self, pointer: &str, key: &str) {
        let members = self.object.pointer_mut(pointer).and_then(Json::as_object_mut);
        if members.and_then(|members| members.remove(key)).is_some() {
            self.operations.push(json!({ "op": "remove", "path": below(pointer, key) }));
        }
    }

    /// Adds to the end of the list at that pointer, which is made where it is missing.
    pub fn append(&mut self, pointer: &str, value: Json) {
        self.make(pointer, json!([]));
        if let Some(items) = self.object.pointer_mut(pointer).and_then(Json::as_array_mut) {
            items.push(value.clone());
            self.operations.push(json!({ "op": "add", "path": below(pointer, "-"), "value": value }));
        }
    }

    /// Puts an empty value where nothing, or null, is; what it lies in is there.
    fn make(&mut self, pointer: &str, empty: Json) {
        if self.object.pointer(pointer).is_some_and(|found| !found.is_null()) {
            return;
        }
        let Some((parent, key)) = pointer.rsplit_once('/') else { return };
        if let Some(members) = self.object.pointer_mut(parent).and_then(Json::as_object_mut) {
            members.insert(unescaped(key), empty.clone());
            self.operations.push(json!({ "op": "add", "path": pointer, "value": empty }));
        }
    }

    pub fn object_at(&self, pointer: &str) -> Option<&Map<String, Json>> {
        self.object.pointer(pointer)?.as_object()
    }
}

fn unescaped(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

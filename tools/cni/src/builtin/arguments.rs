//! What a plugin reads beside its own options: `CNI_ARGS` and the conventions for `args` and `runtimeConfig`.

use berth_net::link::{Mac, parse_mac};
use berth_types::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Call, Input};

/// The options of a plugin.
pub(super) fn options<T: DeserializeOwned>(input: &Input) -> Result<T> {
    let set: Input = input
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    serde_json::from_value(Value::Object(set))
        .map_err(|error| Error::invalid_argument("its configuration cannot be understood").caused_by(error))
}

/// One of the variable's arguments. Any other is refused unless `IgnoreUnknown` is among them.
pub(super) fn argument<'a>(call: &Call<'a>, name: &str) -> Result<Option<&'a str>> {
    let value =
        |name: &str| call.arguments.iter().rev().find(|(own, _)| own == name).map(|(_, value)| &**value);
    let tolerant =
        value("IgnoreUnknown").is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"));
    let other = call.arguments.iter().find(|(own, _)| own != name && own != "IgnoreUnknown");
    if let Some((other, _)) = other.filter(|_| !tolerant) {
        return Err(Error::invalid_argument(format!("ARGS: unknown args [{other:?}]")));
    }
    Ok(value(name).filter(|value| !value.is_empty()))
}

/// A value of `runtimeConfig`.
pub(super) fn runtime<'a>(input: &'a Input, key: &str) -> Option<&'a Value> {
    input.get("runtimeConfig")?.get(key).filter(|value| !value.is_null())
}

/// A value of `args`' part for everybody.
pub(super) fn conventional<'a>(input: &'a Input, key: &str) -> Option<&'a Value> {
    input.get("args")?.get("cni")?.get(key).filter(|value| !value.is_null())
}

/// The hardware address that is asked for, the last of `own`, `CNI_ARGS`, `args` and `runtimeConfig`.
pub(super) fn hardware_address(call: &Call<'_>, input: &Input, own: &str) -> Result<Option<Mac>> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let from_variable = argument(call, "MAC")?.unwrap_or_default().to_owned();
    let all = [own.to_owned(), from_variable, text(conventional(input, "mac")), text(runtime(input, "mac"))];
    let Some(last) = all.iter().rfind(|text| !text.is_empty()) else { return Ok(None) };
    let mac = parse_mac(last).ok_or_else(|| {
        Error::invalid_argument(format!("{last:?} is no hardware address that a device may have"))
    })?;
    Ok(Some(mac))
}

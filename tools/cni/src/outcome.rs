//! What a plugin answers to ADD, in the forms of every version (specification 1.1, section 5, and the older
//! specifications).

use berth_types::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::version::Version;

/// A result, in the form of 1.1.0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// The devices that were made, in the container and on the host.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Device>,
    /// The addresses.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<Ip>,
    /// The routes.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// The name service.
    #[serde(deserialize_with = "or_default")]
    pub dns: Dns,
}

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its largest packet.
    #[serde(skip_serializing_if = "is_zero")]
    pub mtu: i64,
    /// The namespace it is in; empty for the host's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// Its socket, for one in user space.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// Its address on the bus, for a piece of hardware.
    #[serde(rename = "pciID", skip_serializing_if = "String::is_empty")]
    pub pci_id: String,
}

/// An address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ip {
    /// The number of its device in the list of devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<i64>,
    /// `ADDRESS/BITS`.
    pub address: String,
    /// The gateway of its subnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    /// Where to, `ADDRESS/BITS`.
    pub dst: String,
    /// By which gateway; that of the subnet if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gw: Option<String>,
    /// The largest packet.
    #[serde(skip_serializing_if = "is_zero")]
    pub mtu: i64,
    /// The largest segment that is announced.
    #[serde(skip_serializing_if = "is_zero")]
    pub advmss: i64,
    /// The order among routes to the same place.
    #[serde(skip_serializing_if = "is_zero")]
    pub priority: i64,
    /// The table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<i64>,
    /// The scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<i64>,
}

/// The name service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// The servers.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The host's own domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// The domains that are searched.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options of resolv.conf(5).
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Outcome {
    /// Reads what a plugin answered. An answer that does not say its version is of the version that was asked in.
    pub fn read(bytes: &[u8], asked: Version) -> Result<Self> {
        let wrong = |why: &str| Error::invalid_argument(format!("the result {why}"));
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| wrong("is no JSON").caused_by(error))?;
        let Value::Object(object) = &value else { return Err(wrong("is no object")) };
        let version = match object.get("cniVersion") {
            None => asked,
            Some(Value::String(text)) if text.is_empty() => asked,
            Some(Value::String(text)) => text.parse()?,
            Some(_) => return Err(wrong("has a version that is no text")),
        };
        let outcome = if version < Version::V0_3_0 {
            Self::from_old(object)
        } else {
            serde_json::from_value::<Self>(value)
        };
        let outcome = outcome.map_err(|error| wrong("is none of the specification").caused_by(error))?;
        outcome.check()?;
        Ok(outcome)
    }

    /// Writes it in the form of a version.
    pub fn write(&self, version: Version) -> Value {
        let mut value = match version {
            Version::V0_1_0 | Version::V0_2_0 => self.to_old(),
            _ => serde_json::to_value(self).unwrap_or_default(),
        };
        value["cniVersion"] = version.as_str().into();
        if version < Version::V1_1_0 {
            for (list, later) in [
                ("interfaces", &["mtu", "socketPath", "pciID"][..]),
                ("routes", &["mtu", "advmss", "priority", "table", "scope"][..]),
            ] {
                for one in value.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                    if let Some(one) = one.as_object_mut() {
                        one.retain(|key, _| !later.contains(&key.as_str()));
                    }
                }
            }
        }
        if version >= Version::V0_3_0 && version < Version::V1_0_0 {
            for ip in value.get_mut("ips").and_then(Value::as_array_mut).into_iter().flatten() {
                let is_six = ip["address"].as_str().is_some_and(|address| address.contains(':'));
                ip["version"] = if is_six { "6" } else { "4" }.into();
            }
        }
        value
    }

    /// Every address, gateway and device number must be what it claims: callers put them into files and answers.
    fn check(&self) -> Result<()> {
        for ip in &self.ips {
            if split(&ip.address).is_none() {
                return Err(Error::invalid_argument(format!(
                    "the result's address {:?} is none",
                    ip.address
                )));
            }
            if let Some(gateway) = ip.gateway.as_deref().filter(|gateway| !gateway.is_empty())
                && gateway.parse::<std::net::IpAddr>().is_err()
            {
                return Err(Error::invalid_argument(format!("the result's gateway {gateway:?} is none")));
            }
            let known =
                |number: i64| usize::try_from(number).is_ok_and(|number| number < self.interfaces.len());
            if ip.interface.is_some_and(|number| !known(number)) {
                return Err(Error::invalid_argument(format!(
                    "the result's address {} is on a device that it does not list",
                    ip.address
                )));
            }
        }
        Ok(())
    }

    /// 0.1 and 0.2 have one address a family, with its routes.
    fn from_old(object: &Map<String, Value>) -> serde_json::Result<Self> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Old {
            ip: String,
            gateway: Option<String>,
            routes: Vec<Route>,
        }
        let mut outcome = Self::default();
        if let Some(dns) = object.get("dns") {
            outcome.dns = serde_json::from_value(dns.clone())?;
        }
        for family in ["ip4", "ip6"] {
            let Some(value) = object.get(family).filter(|value| !value.is_null()) else { continue };
            let old: Old = serde_json::from_value(value.clone())?;
            outcome.ips.push(Ip { interface: None, address: old.ip, gateway: old.gateway });
            outcome.routes.extend(old.routes);
        }
        Ok(outcome)
    }

    fn to_old(&self) -> Value {
        let mut value = json!({"dns": self.dns});
        for ip in &self.ips {
            let is_six = ip.address.contains(':');
            let family = if is_six { "ip6" } else { "ip4" };
            if value.get(family).is_some() {
                continue;
            }
            let routes: Vec<Value> = self
                .routes
                .iter()
                .filter(|route| route.dst.contains(':') == is_six)
                .map(|route| json!({"dst": route.dst, "gw": route.gw}))
                .collect();
            value[family] = json!({"ip": ip.address, "gateway": ip.gateway, "routes": routes});
        }
        value
    }
}

/// `ADDRESS/BITS` as its parts.
pub(crate) fn split(text: &str) -> Option<(std::net::IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: std::net::IpAddr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

/// Go writes an empty list as null.
fn list<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(source: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(source)?.unwrap_or_default())
}

fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    source: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(source)?.unwrap_or_default())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = r#"{"cniVersion":"1.1.0","interfaces":[{"name":"br0","mac":"02:00:00:00:00:01","mtu":1400},
        {"name":"eth0","sandbox":"/n","socketPath":"/s","pciID":"p"}],
        "ips":[{"interface":1,"address":"10.1.0.2/24","gateway":"10.1.0.1"},{"interface":1,"address":"fd00::2/64"}],
        "routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.1","mtu":1300,"table":5,"scope":0},{"dst":"::/0"}],
        "dns":{"nameservers":["10.1.0.1"],"search":null}}"#;

    #[test]
    fn a_result_is_written_in_every_version_and_read_again() {
        let outcome = Outcome::read(NEW.as_bytes(), Version::V1_1_0).unwrap();
        assert_eq!(outcome.routes[0].table, Some(5));
        for version in Version::ALL {
            let value = outcome.write(version);
            assert_eq!(value["cniVersion"], version.as_str());
            let again = Outcome::read(value.to_string().as_bytes(), Version::V0_1_0).unwrap();
            assert_eq!(again.dns, outcome.dns);
            assert_eq!(again.ips.len(), 2, "{version}");
            assert_eq!(again.ips[0].address, "10.1.0.2/24");
            assert_eq!(again.routes.len(), 2);
            assert_eq!(again.write(version), value, "{version}");
        }
        let old = outcome.write(Version::V0_3_1);
        assert_eq!(old["ips"][1]["version"], "6");
        assert!(old["interfaces"][1].get("pciID").is_none() && old["routes"][0].get("table").is_none());
        assert_eq!(outcome.write(Version::V0_2_0)["ip4"]["gateway"], "10.1.0.1");
        assert!(outcome.write(Version::V1_0_0)["ips"][0].get("version").is_none());
    }

    #[test]
    fn an_answer_that_is_no_result_is_refused() {
        for bad in [
            "",
            "x",
            "[]",
            "7",
            r#"{"cniVersion":7}"#,
            r#"{"cniVersion":"9.0.0"}"#,
            r#"{"ips":[{"address":"10.0.0.1"}]}"#,
            r#"{"ips":[{"address":"10.0.0.1/33"}]}"#,
            r#"{"ips":[{"address":"10.0.0.1/8","interface":0}]}"#,
            r#"{"interfaces":[{"name":"e"}],"ips":[{"address":"10.0.0.1/8","interface":-1}]}"#,
            r#"{"ips":[{"address":"10.0.0.1/8","gateway":"x"}]}"#,
            r#"{"ips":7}"#,
        ] {
            assert!(Outcome::read(bad.as_bytes(), Version::V1_0_0).is_err(), "{bad}");
        }
        assert_eq!(Outcome::read(b"{}", Version::V1_0_0).unwrap(), Outcome::default());
        let null = br#"{"interfaces":null,"ips":null,"routes":null,"dns":null}"#;
        assert_eq!(Outcome::read(null, Version::V1_0_0).unwrap(), Outcome::default());
    }
}

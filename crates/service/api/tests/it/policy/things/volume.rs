//! What must be there before a route of the volume API can be called.

use super::{Kind, Thing, Vars, World, id};
use serde_json::{Value, json};

const CINDER: &str = "/volume/v3";

impl World {
    pub(super) async fn volume_thing(&self, thing: Thing, vars: &mut Vars) {
        match thing {
            Thing::QosSpecs => {
                let kind = self.volume_type(true).await;
                vars.set("volume_type", Kind::Common, kind);
                let specs = json!({ "name": self.word(), "consumer": "front-end", "total_iops_sec": "100" });
                let made = self.admin("POST", &format!("{CINDER}/qos-specs"), json!({ "qos_specs": specs })).await;
                vars.set("id", Kind::Common, id(&made["qos_specs"]));
            }
            Thing::VolumeTypePrivate => {
                let kind = self.volume_type(false).await;
                let body = json!({ "addProjectAccess": { "project": vars.get("project").unwrap() } });
                self.admin("POST", &format!("{CINDER}/types/{kind}/action"), body).await;
                vars.secret("id", kind);
            }
            _ => vars.set("id", Kind::Common, self.volume_type(true).await),
        }
    }

    async fn volume_type(&self, public: bool) -> String {
        let specs = json!({ "multiattach": "<is> False" });
        let kind =
            json!({ "name": self.word(), "os-volume-type-access:is_public": public, "extra_specs": specs });
        let made: Value = self.admin("POST", &format!("{CINDER}/types"), json!({ "volume_type": kind })).await;
        id(&made["volume_type"])
    }
}

//! What must be there before a route of the volume API can be called.

use super::super::Who;
use super::{Kind, Thing, Vars, World, id};
use arcus_engine::volumes::VolumeNew;
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
            Thing::Volume => vars.secret("id", self.volume(None).await),
            Thing::VolumeRefused => {
                let specs = json!({ "vendor_name": "nobody" });
                let kind = json!({ "name": self.word(), "extra_specs": specs });
                let made = self.admin("POST", &format!("{CINDER}/types"), json!({ "volume_type": kind })).await;
                vars.secret("id", self.volume(Some(id(&made["volume_type"]))).await);
            }
            Thing::VolumeTransfer => {
                let volume = self.volume(None).await;
                let path = format!("{CINDER}/os-volume-transfer");
                let made = self.demo("POST", &path, json!({ "transfer": { "volume_id": volume } })).await;
                vars.secret("id", id(&made["transfer"]));
                vars.secret("volume", volume);
                vars.set("key", Kind::Known, made["transfer"]["auth_key"].as_str().unwrap());
            }
            _ => vars.set("id", Kind::Common, self.volume_type(true).await),
        }
    }

    /// A volume of the project `demo`, as far as its node has come with it.
    pub(super) async fn volume(&self, volume_type: Option<String>) -> String {
        let app = &self.nova.cloud.app;
        let ctx = app.identity.verify(&self.tokens[&Who::Member]).unwrap().ctx();
        let metadata = [("k".to_owned(), "v".to_owned())].into();
        let new = VolumeNew { size_gib: Some(1), volume_type, metadata, ..VolumeNew::default() };
        let volume = app.engine.volume_create(&ctx, &new).await.unwrap();
        self.nova.play().await;
        volume.id.to_string()
    }

    async fn volume_type(&self, public: bool) -> String {
        let specs = json!({ "multiattach": "<is> False" });
        let kind = json!({ "name": self.word(), "os-volume-type-access:is_public": public, "extra_specs": specs });
        let made: Value = self.admin("POST", &format!("{CINDER}/types"), json!({ "volume_type": kind })).await;
        id(&made["volume_type"])
    }
}

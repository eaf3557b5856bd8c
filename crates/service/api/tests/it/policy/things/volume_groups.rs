//! What is made of a volume.

use super::super::Who;
use super::{Kind, Thing, Vars, World, id};
use arcus_engine::volume_groups::{VolumeGroupChange, VolumeGroupNew};
use arcus_types::{OpCtx, VolumeGroupId};
use serde_json::{Value, json};

const CINDER: &str = "/volume/v3";

impl World {
    pub(super) async fn volume_group_thing(&self, thing: Thing, vars: &mut Vars) {
        let app = &self.nova.cloud.app;
        let specs = [("colour".to_owned(), "red".to_owned())].into();
        let name = self.word();
        let kind = app.engine.volume_group_type_create(&OpCtx::system(), name, None, true, specs).await.unwrap();
        if thing == Thing::VolumeGroupType {
            return vars.set("id", Kind::Common, kind.id.to_string());
        }
        let ctx = app.identity.verify(&self.tokens[&Who::Member]).unwrap().ctx();
        let new = VolumeGroupNew {
            name: Some("g".into()),
            description: None,
            group_type: kind.id.to_string(),
            volume_types: vec!["dir".into()],
            zone: None,
        };
        let group: VolumeGroupId = app.engine.volume_group_create(&ctx, &new).await.unwrap().id;
        let volume = self.volume(None).await;
        vars.secret("id", group.to_string());
        if thing == Thing::VolumeGroup {
            return vars.secret("free_volume", volume);
        }
        let change = VolumeGroupChange { add: vec![volume.parse().unwrap()], ..VolumeGroupChange::default() };
        app.engine.volume_group_update(&ctx, group, &change).await.unwrap();
        vars.secret("volume", volume);
        if thing == Thing::VolumeGroupSnapshot {
            let made = app.engine.volume_group_snapshot_create(&ctx, group, Some("s".into()), None).await.unwrap();
            self.nova.play().await;
            vars.secret("group", group.to_string());
            vars.secret("id", made.id.to_string());
        }
    }

    pub(super) async fn volume_part(&self, thing: Thing, vars: &mut Vars) {
        let volume = self.volume(None).await;
        let volumes = format!("{CINDER}/volumes");
        let made = match thing {
            Thing::VolumeSnapshot => {
                let body = json!({ "snapshot": { "volume_id": volume, "name": "s", "metadata": { "k": "v" } } });
                let made = id(&self.demo("POST", &format!("{CINDER}/snapshots"), body).await["snapshot"]);
                self.nova.play().await;
                vars.secret("snapshot", made.clone());
                made
            }
            Thing::Attachment => {
                let server = uuid::Uuid::new_v4();
                let body = json!({ "attachment": { "volume_uuid": volume, "instance_uuid": server,
                    "connector": { "host": "h" } } });
                let headers = [("content-type", "application/json"), ("openstack-api-version", "volume 3.44")];
                let body = serde_json::to_vec(&body).unwrap();
                let token = self.token(Who::Member).unwrap();
                let path = format!("{CINDER}/attachments");
                let made = self.nova.cloud.send("POST", &path, &token, &headers, body).await.expect(200);
                id(&made["attachment"])
            }
            Thing::ServerWithVolume => {
                self.server(vars).await;
                let server = vars.get("id").unwrap().to_owned();
                let body = json!({ "volumeAttachment": { "volumeId": volume } });
                let path = format!("/compute/v2.1/servers/{server}/os-volume_attachments");
                self.demo("POST", &path, body).await;
                vars.secret("free_volume", self.volume(None).await);
                self.nova.play().await;
                server
            }
            Thing::VolumeAfter(actions) => {
                for action in actions {
                    let body = match *action {
                        "os-attach" => json!({ "os-attach": { "host_name": "h", "mountpoint": "/dev/vdc" } }),
                        "image" => json!({ "os-set_image_metadata": { "metadata": { "k": "v" } } }),
                        plain => json!({ plain: Value::Null }),
                    };
                    self.demo("POST", &format!("{volumes}/{volume}/action"), body).await;
                }
                volume.clone()
            }
            _ => volume.clone(),
        };
        vars.secret("volume", volume);
        vars.set("id", Kind::Secret, made);
    }
}

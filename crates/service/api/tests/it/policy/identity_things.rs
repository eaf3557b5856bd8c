//! What the cases of the identity API need beyond users and projects.

use super::Who;
use super::things::{Kind, Thing, Vars, World, id};
use serde_json::{Value, json};

impl World {
    /// Makes a thing of the catalogue, a limit, or what belongs to the user `demo`.
    pub(super) async fn identity_more(&self, thing: Thing, vars: &mut Vars) {
        let word = self.word();
        match thing {
            Thing::Trust => {
                let user = vars.get("user").unwrap().to_owned();
                let trust = json!({ "trustor_user_id": user, "trustee_user_id": vars.get("admin_user").unwrap(),
                    "project_id": vars.get("project").unwrap(), "impersonation": false,
                    "roles": [{ "name": "member" }] });
                let made = self.demo("POST", "/identity/v3/OS-TRUST/trusts", json!({ "trust": trust })).await;
                vars.secret("trust_id", id(&made["trust"]));
                vars.secret("id", id(&made["trust"]));
                vars.set("role_id", Kind::Common, vars.get("member_role").unwrap().to_owned());
            }
            Thing::AccessRule => {
                let user = vars.get("user").unwrap().to_owned();
                let path = format!("/identity/v3/users/{user}/application_credentials");
                let rule = json!({ "service": "compute", "method": "GET", "path": format!("/v2.1/{word}") });
                let body = json!({ "application_credential": { "name": word, "access_rules": [rule] } });
                let made = self.demo("POST", &path, body).await["application_credential"].clone();
                self.demo("DELETE", &format!("{path}/{}", id(&made)), Value::Null).await;
                vars.secret("access_rule_id", id(&made["access_rules"][0]));
                vars.secret("id", id(&made["access_rules"][0]));
                vars.secret("user_id", user);
            }
            Thing::Credential => {
                let body = json!({ "credential": { "type": "cert", "blob": format!("the secret {word}") } });
                let made = self.demo("POST", "/identity/v3/credentials", body).await;
                vars.secret("blob", format!("the secret {word}"));
                vars.secret("credential_id", id(&made["credential"]));
                vars.secret("id", id(&made["credential"]));
            }
            Thing::ProjectTagged => {
                let body = json!({ "project": { "name": word, "tags": ["t"] } });
                let made = self.by(Who::Admin, "POST", "/identity/v3/projects", body).await;
                vars.secret("project_id", id(&made["project"]));
                vars.secret("id", id(&made["project"]));
            }
            Thing::Implication => {
                let role = self.by(Who::Admin, "POST", "/identity/v3/roles", json!({ "role": { "name": word } })).await;
                let (role, reader) = (id(&role["role"]), vars.get("reader_role").unwrap().to_owned());
                let path = format!("/identity/v3/roles/{role}/implies/{reader}");
                self.by(Who::Admin, "PUT", &path, Value::Null).await;
                vars.set("role_id", Kind::Common, role);
                vars.set("implied_id", Kind::Common, reader);
            }
            _ => self.catalog_thing(thing, &word, vars).await,
        }
    }

    async fn catalog_thing(&self, thing: Thing, word: &str, vars: &mut Vars) {
        let make = async |kind: &str, body: Value| {
            id(&self.by(Who::Admin, "POST", &format!("/identity/v3/{kind}s"), json!({ kind: body })).await[kind])
        };
        match thing {
            Thing::Region => vars.set("region_id", Kind::Common, make("region", json!({ "id": word })).await),
            Thing::Service => {
                vars.set("service_id", Kind::Common, make("service", json!({ "type": word, "name": word })).await);
            }
            Thing::Endpoint => {
                let service = make("service", json!({ "type": word, "name": word })).await;
                let endpoint = json!({ "service_id": service, "interface": "public", "url": "https://elsewhere.test" });
                vars.set("endpoint_id", Kind::Common, make("endpoint", endpoint).await);
                vars.set("service_id", Kind::Common, service);
            }
            _ => {
                let service = vars.get("service_id").unwrap().to_owned();
                let all = json!({ "registered_limits": [
                    { "service_id": service, "resource_name": word, "default_limit": 7 }
                ] });
                let made = self.by(Who::Admin, "POST", "/identity/v3/registered_limits", all).await;
                vars.set("registered_limit_id", Kind::Common, id(&made["registered_limits"][0]));
                vars.set("resource", Kind::Common, word);
                if thing == Thing::Limit {
                    let all = json!({ "limits": [{ "service_id": service, "resource_name": word, "resource_limit": 9,
                        "project_id": vars.get("project").unwrap() }] });
                    let made = self.by(Who::Admin, "POST", "/identity/v3/limits", all).await;
                    vars.secret("limit_id", id(&made["limits"][0]));
                    vars.secret("id", id(&made["limits"][0]));
                }
            }
        }
    }
}

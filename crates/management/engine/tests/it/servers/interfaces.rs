//! What the history says of interfaces that come and go: it is over when the node has acted, whatever comes between.

use super::{Cloud, again, fault};
use arcus_engine::servers::{InterfaceWish, NetworkOrPort};
use arcus_store::{ServerAction, ServerActionFilter, TaskFilter};
use arcus_types::agent::Observed;
use arcus_types::servers::{ServerState, ServerTask};
use arcus_types::tasks::TaskState;
use arcus_types::{PortId, ServerId};

impl Cloud {
    async fn attached(&self, id: ServerId) -> PortId {
        let wish =
            InterfaceWish { what: Some(NetworkOrPort::Network(self.network)), fixed_ip: None, tag: Some("t".into()) };
        self.engine.server_interface_attach(&again(&self.member), id, &wish).await.unwrap().port.id
    }

    /// How the last action of this name stands: its event, its result and whether it says when it was over.
    async fn told(&self, id: ServerId, action: &str) -> (String, Option<String>, bool) {
        let filter = ServerActionFilter { limit: 20, ..ServerActionFilter::default() };
        let (actions, _) = self.engine.server_actions(&self.member, id, &filter).await.unwrap();
        let ServerAction { event, .. } = actions.into_iter().find(|a| a.action == action).unwrap();
        let event = event.unwrap();
        (event.event, event.result, event.finished_at.is_some())
    }

    async fn tasks_active(&self, id: ServerId) -> usize {
        let filter = TaskFilter { resource_id: Some(id.0), limit: 50, ..TaskFilter::default() };
        let (tasks, _) = self.engine.tasks(&self.member, filter).await.unwrap();
        tasks.iter().filter(|task| task.state.is_active()).count()
    }
}

fn event(name: &str, result: Option<&str>) -> (String, Option<String>, bool) {
    (name.to_owned(), result.map(str::to_owned), result.is_some())
}

#[tokio::test]
async fn an_interface_is_over_when_the_node_has_acted() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let port = cloud.attached(id).await;
    assert_eq!(cloud.told(id, "attach_interface").await, event("compute_attach_interface", None));
    assert_eq!(cloud.tasks_active(id).await, 1);
    let version = cloud.server(id).await.version;
    cloud.play_with(|report| report.servers[0].version = version - 1).await;
    assert_eq!(cloud.told(id, "attach_interface").await.1, None, "the node has not seen it yet");
    cloud.play().await;
    assert_eq!(cloud.told(id, "attach_interface").await, event("compute_attach_interface", Some("Success")));
    let server = cloud.server(id).await;
    assert_eq!((server.state, server.task, server.request_id), (ServerState::Active, None, None));
    cloud.engine.server_interface_detach(&again(&cloud.member), id, port).await.unwrap();
    assert_eq!(cloud.told(id, "detach_interface").await, event("compute_detach_interface", None));
    cloud.play().await;
    assert_eq!(cloud.told(id, "detach_interface").await, event("compute_detach_interface", Some("Success")));
    assert_eq!(cloud.tasks_active(id).await, 0);
}

#[tokio::test]
async fn a_later_wish_ends_the_interfaces_before_it() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    let port = cloud.attached(id).await;
    cloud.engine.server_interface_detach(&again(&cloud.member), id, port).await.unwrap();
    cloud.engine.server_stop(&again(&cloud.member), id).await.unwrap();
    assert_eq!(cloud.tasks_active(id).await, 3);
    cloud.play().await;
    for (action, name) in
        [("attach_interface", "compute_attach_interface"), ("detach_interface", "compute_detach_interface")]
    {
        assert_eq!(cloud.told(id, action).await, event(name, Some("Success")));
    }
    assert_eq!(cloud.server(id).await.state, ServerState::Stopped);
    assert_eq!(cloud.tasks_active(id).await, 0);
    // A guest that ended by itself gets interfaces too.
    cloud.attached(id).await;
    cloud.play_with(|report| report.servers[0].observed = Observed::Ended).await;
    assert_eq!(cloud.told(id, "attach_interface").await.1.as_deref(), Some("Success"));
    cloud.attached(id).await;
    cloud.engine.server_delete(&again(&cloud.member), id).await.unwrap();
    assert_eq!(cloud.server(id).await.task, Some(ServerTask::Deleting));
    cloud.play().await;
    assert_eq!(cloud.told(id, "attach_interface").await.1.as_deref(), Some("Success"));
}

#[tokio::test]
async fn an_interface_that_the_node_cannot_give_says_why() {
    let cloud = Cloud::start().await;
    let id = cloud.running().await;
    cloud.attached(id).await;
    let failing = |report: &mut arcus_types::agent::NodeReport| {
        report.servers[0].observed = Observed::Failed;
        report.servers[0].fault = fault("no slot is free", false);
    };
    cloud.play_with(failing).await;
    assert_eq!(cloud.told(id, "attach_interface").await, event("compute_attach_interface", Some("Error")));
    let filter = TaskFilter { resource_id: Some(id.0), limit: 50, ..TaskFilter::default() };
    let (tasks, _) = cloud.engine.tasks(&cloud.member, filter).await.unwrap();
    let task = tasks.iter().find(|task| task.state == TaskState::Failed).unwrap();
    assert_eq!(task.error.as_deref(), Some("no slot is free"));
    // A stopped server stays stopped, and what it was asked for still ends.
    let id = cloud.running().await;
    cloud.engine.server_stop(&again(&cloud.member), id).await.unwrap();
    cloud.play().await;
    cloud.attached(id).await;
    cloud
        .play_with(|report| {
            for told in report.servers.iter_mut().filter(|told| told.id == id) {
                told.observed = Observed::Failed;
                told.fault = fault("no slot is free", false);
            }
        })
        .await;
    assert_eq!(cloud.told(id, "attach_interface").await, event("compute_attach_interface", Some("Error")));
    assert_eq!(cloud.server(id).await.state, ServerState::Stopped);
}

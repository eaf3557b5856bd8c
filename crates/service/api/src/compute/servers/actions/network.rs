//! Actions over addresses from before there was a network API; gone from 2.44 on.

use super::{Call, done};
use crate::ApiError;
use crate::compute::fields::{Fields, required};
use arcus_engine::floating_ips::FloatingIpChange;
use arcus_engine::servers::{Interface, InterfaceWish, NetworkOrPort};
use arcus_store::{FLOATING_IP_FIELDS, FloatingIp, Listing};
use arcus_types::PortId;
use axum::http::StatusCode;
use axum::response::Response;
use std::net::IpAddr;

impl Call<'_> {
    /// Adds an interface on a network.
    pub(super) async fn fixed_ip_add(&self) -> Result<Response, ApiError> {
        let mut fields = Fields::of(self.body, "addFixedIp", &[])?;
        let network = fields.parsed("networkId")?.ok_or_else(|| required("addFixedIp", "networkId"))?;
        fields.end()?;
        let wish = InterfaceWish { what: Some(NetworkOrPort::Network(network)), fixed_ip: None, tag: None };
        done(self.app.engine.server_interface_attach(&self.ctx, self.id, &wish).await.map(drop))
    }

    /// Removes the interface that holds an address.
    pub(super) async fn fixed_ip_remove(&self) -> Result<Response, ApiError> {
        let address = self.address("removeFixedIp")?;
        let interfaces = self.app.engine.server_interfaces(&self.ctx, self.id).await?;
        let holder = interfaces.iter().find(|i| i.port.fixed_ips.iter().any(|f| f.address == address));
        let holder = holder.ok_or_else(|| {
            ApiError::bad_request(format!("Fixed IP {address} is not associated with instance {}.", self.id))
        })?;
        done(self.app.engine.server_interface_detach(&self.ctx, self.id, holder.port.id).await)
    }

    /// Leads a floating IP to one of the server's addresses.
    pub(super) async fn floating_ip_add(&self) -> Result<Response, ApiError> {
        let mut fields = Fields::of(self.body, "addFloatingIp", &[])?;
        let address = fields.parsed("address")?.ok_or_else(|| required("addFloatingIp", "address"))?;
        let fixed: Option<IpAddr> = fields.parsed("fixed_address")?;
        fields.end()?;
        let interfaces = self.app.engine.server_interfaces(&self.ctx, self.id).await?;
        let floating = self.floating(address).await?;
        let (port, fixed_address) = holder(&interfaces, fixed).ok_or_else(|| match fixed {
            Some(wanted) => {
                ApiError::bad_request(format!("Specified fixed address {wanted} is not assigned to the instance."))
            }
            None => ApiError::bad_request("No fixed IPs associated to instance"),
        })?;
        let change = FloatingIpChange {
            port_id: Some(Some(port)),
            fixed_address: Some(fixed_address),
            ..FloatingIpChange::default()
        };
        match self.app.engine.floating_ip_update(&self.ctx, floating.id, change).await {
            // Here, an address that leads elsewhere has always been called a bad request.
            Err(arcus_engine::EngineError::Conflict { message, .. }) => Err(ApiError::bad_request(message)),
            other => done(other.map(drop)),
        }
    }

    /// Lets a floating IP lead nowhere.
    pub(super) async fn floating_ip_remove(&self) -> Result<Response, ApiError> {
        let address = self.address("removeFloatingIp")?;
        let interfaces = self.app.engine.server_interfaces(&self.ctx, self.id).await?;
        let floating = self.floating(address).await?;
        if !interfaces.iter().any(|i| Some(i.port.id) == floating.port_id) {
            let message = format!("Floating IP {address} is not associated with instance {}.", self.id);
            return Err(ApiError::new(StatusCode::CONFLICT, message));
        }
        let change = FloatingIpChange { port_id: Some(None), ..FloatingIpChange::default() };
        done(self.app.engine.floating_ip_update(&self.ctx, floating.id, change).await.map(drop))
    }

    fn address(&self, what: &'static str) -> Result<IpAddr, ApiError> {
        let mut fields = Fields::of(self.body, what, &[])?;
        let address = fields.parsed("address")?.ok_or_else(|| required(what, "address"))?;
        fields.end()?;
        Ok(address)
    }

    async fn floating(&self, address: IpAddr) -> Result<FloatingIp, ApiError> {
        let by = FLOATING_IP_FIELDS.iter().find(|f| f.name == "floating_ip_address").copied();
        let filters = by.map(|by| (by, vec![address.to_string()])).into_iter().collect();
        let listing = Listing { filters, viewer: self.ctx.project_id(), ..Listing::default() };
        let page = self.app.engine.floating_ip_list(&self.ctx, listing).await?;
        let found = page.rows.into_iter().next();
        found.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "floating IP not found"))
    }
}

/// The port and address that are meant: this one, or the first of IP version 4.
fn holder(interfaces: &[Interface], wanted: Option<IpAddr>) -> Option<(PortId, IpAddr)> {
    for interface in interfaces {
        for fixed in &interface.port.fixed_ips {
            if wanted.map_or(fixed.address.is_ipv4(), |wanted| fixed.address == wanted) {
                return Some((interface.port.id, fixed.address));
            }
        }
    }
    None
}

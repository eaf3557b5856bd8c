//! The policy table of the placement API.

crate::actions! {
    VERSIONS = "placement:versions:list", Public;
    PROVIDER_LIST = "placement:resource_providers:list", Admin;
    PROVIDER_SHOW = "placement:resource_providers:show", Admin;
    PROVIDER_CREATE = "placement:resource_providers:create", Admin;
    PROVIDER_UPDATE = "placement:resource_providers:update", Admin;
    PROVIDER_DELETE = "placement:resource_providers:delete", Admin;
    INVENTORY_READ = "placement:inventories:read", Admin;
    INVENTORY_UPDATE = "placement:inventories:update", Admin;
    PROVIDER_TRAITS_UPDATE = "placement:resource_providers:traits:update", Admin;
    PROVIDER_AGGREGATES_UPDATE = "placement:resource_providers:aggregates:update", Admin;
    CLASS_READ = "placement:resource_classes:read", Admin;
    CLASS_UPDATE = "placement:resource_classes:update", Admin;
    TRAIT_READ = "placement:traits:read", Admin;
    TRAIT_UPDATE = "placement:traits:update", Admin;
    ALLOCATION_READ = "placement:allocations:read", Admin;
    ALLOCATION_UPDATE = "placement:allocations:update", Admin;
    CANDIDATE_LIST = "placement:allocation_candidates:list", Admin;
    USAGE_READ = "placement:usages:read", ProjectReader;
    RESHAPE = "placement:reshaper:reshape", Admin;
}

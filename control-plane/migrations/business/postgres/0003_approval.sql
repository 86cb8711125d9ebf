-- A site's limits of approval, JSON.
create table site_approval (
    site_id text primary key references sites (id),
    body text not null
);

-- Who has approved a plan; a large one takes two people.
create table plan_approvals (
    plan_id text not null references plans (id),
    user_id text not null references users (id),
    who text not null,
    at bigint not null,
    primary key (plan_id, user_id)
);

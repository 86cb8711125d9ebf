# Units of time, after their number.
unit-seconds = { $n } s
unit-minutes = { $n } min
unit-hours = { $n } h
unit-days = { $n } d

# After an age.
age-ago = { " " }ago

# Navigation
nav-skip = Skip to content
nav-main = Main navigation
nav-sites = Sites
nav-site = This site
nav-where = You are here
nav-language = Language
nav-password = Change password
nav-sign-out = Sign out
tab-live = Live
tab-curtailment = Curtailment

# Roles
role-owner = Owner
role-admin = Administrator
role-operator = Operator
role-approver = Approver
role-technician = Technician
role-viewer = Viewer

# Signing in
login-title = Sign in
login-name = User name
login-password = Password
login-submit = Sign in
login-help = Forgotten your password? Whoever runs this server can give you a new one-time password:
password-title = Set a new password
password-first = Your password was made for you and works once. Choose your own: at least 12 characters. A few words in a row are good.
password-again = At least 12 characters. A few words in a row are good. Everywhere else you will be signed out.
password-old = Present password
password-old-first = One-time password
password-new = New password
password-new-again = New password again
password-submit = Set password

# Sites
sites-title = Sites
sites-sums = All sites together
sites-empty = No sites yet
sites-empty-how = A site is one hosting location with its grid connection. Add the first one on the server:
site-load = { $percent }%
site-sums = Sums of this site
site-as-of = Last reading
site-no-agents = No agent at this site yet
site-no-agents-how = An agent runs on a gateway in the miners' network and reports them here. Make a one-time enrolment token on the server, then give it to "hashinsight-agent enroll" on the gateway:
site-no-miners = No miners yet
site-no-miners-how = The agent has not reported any miners. Look at its inventory on the gateway: hashinsight-agent status

# Agents
agents-none = none
agents-online = { $online } of { $all } connected
agent-online = connected
agent-away = not connected, last seen
agent-never = never connected
agent-clock = clock uncertain
agent-clock-synced = clock by NTP
agent-clock-measured = clock measured against this server

# Tiles
tile-power = Power
tile-hashrate = Hashrate
tile-efficiency = Efficiency
tile-hottest = Hottest
tile-hottest-where = at { $place }
tile-miners = Miners
tile-answering = Miners answering
tile-ready = Ready to be stopped
tile-ready-miners = { $count } of { $all } miners, proven without a write
tile-load = { $percent }% of { $capacity }

# Status of a miner
status-hashing = Hashing
status-starting = Starting
status-curtailed = Curtailed
status-off = Off
status-fault = Fault
status-no_answer = No answer
status-stale = Stale
mark-held = in a plan
mark-out-of-service = out of service
mark-protected = protected
mark-weak = address only

# What stands against stopping a miner
block-not-recognised = Not recognised yet
block-unreachable = Does not answer
block-other-device = Another device at its address
block-weak-identity = Known by address only
block-no-capability = Can't be put to sleep
block-credential-refused = Refuses the sign-in
block-writes-off = Takes no writes
block-settings-unreadable = Settings can't be read
block-out-of-service = Out of service
block-protected = Protected from curtailment
block-journal = The agent's journal can't be written
power-modelled = Not measured: from the model's J/TH

# Columns
column-site = Site
column-status = Status
column-place = Rack · position
column-model = Model
column-firmware = Firmware
column-hashrate = Hashrate
column-power = Power
column-efficiency = J/TH
column-hottest = Hottest
column-fans = Fans
column-uptime = Uptime
column-age = Age
column-answering = Answering
column-agents = Agents

# Table
table-search = Search rack, model, serial …
table-all = All statuses
table-sort = Sort
table-apply = Apply
table-count = { $first }–{ $last } of { $total }
table-none = No miner matches
table-clear = Show all miners
table-pages = Pages
table-page = Page { $number } of { $pages }
table-previous = Previous
table-next = Next

# Chart
chart-title = Power and hashrate
chart-range = Time shown
chart-empty = No readings in this time yet. Points appear every five minutes.
chart-failed = The chart could not be loaded. It is tried again.
chart-time = Time

# Plans
plans-empty = No curtailment plans yet
plan-state = State
plan-goal = Goal
plan-goal-reduce = Reduce by { $power }
plan-goal-all = Stop everything
plan-start = Start
plan-length = Length
plan-by = Ordered by
plan-reason = Reason
plan-state-pending = Waits for approval
plan-state-approved = Approved
plan-state-executing = Stopping miners
plan-state-executed = Holding
plan-state-recovering = Waking miners
plan-state-completed = Completed
plan-state-completed_with_failures = Completed, with failures
plan-state-cancelled = Cancelled
plan-state-expired = Expired

# Live updates
live-lost = The connection to the server is lost; figures stand still. Trying again …
live-failed = The server did not answer as expected. Trying again …

# Errors
error-home = To the start page
error-not-found = There is nothing here.
error-forbidden = Your role may not do this. Ask an owner or administrator.
error-unauthenticated = Sign in first.
error-internal = Something failed on our side. Try again; if it stays, look at the server's log.
error-busy = The server is too busy to answer. Try again in a minute.
error-form = The form could not be read. Go back, reload the page and try again.
error-csrf = This page is out of date. Reload it and try again.
error-origin = This request came from another site and was refused.
error-sign-in = User name and password do not belong together.
error-too-many-tries =
    { $minutes ->
        [one] Too many failed tries. Try again in a minute.
       *[other] Too many failed tries. Try again in { $minutes } minutes.
    }
error-too-many-sign-ins = Too many people are signing in at once. Try again in a few seconds.
error-password-first = Set a new password first.
error-password-short = A password has at least { $least } characters.
error-password-long = A password has at most { $most } bytes.
error-password-weak = This password is too easy to guess.
error-password-same = The new password is the old one.
error-password-again = The two new passwords differ.
error-password-old-wrong = The present password is wrong.

# 时间单位
unit-seconds = { $n } 秒
unit-minutes = { $n } 分钟
unit-hours = { $n } 小时
unit-days = { $n } 天

# 时长之后
age-ago = 前

# 导航
nav-skip = 跳到正文
nav-main = 主导航
nav-sites = 矿场
nav-site = 本矿场
nav-where = 当前位置
nav-language = 语言
nav-password = 修改密码
nav-sign-out = 退出登录
tab-live = 实时
tab-curtailment = 限电

# 角色
role-owner = 所有者
role-admin = 管理员
role-operator = 运营人员
role-approver = 审批人
role-technician = 技术员
role-viewer = 只读用户

# 登录
login-title = 登录
login-name = 用户名
login-password = 密码
login-submit = 登录
login-help = 忘记密码？服务器管理员可为您生成新的一次性密码：
password-title = 设置新密码
password-first = 当前密码由系统生成，仅可使用一次。请设置您自己的密码：至少 12 个字符，几个词连在一起即可。
password-again = 至少 12 个字符，几个词连在一起即可。您在其他设备上的登录将全部退出。
password-old = 当前密码
password-old-first = 一次性密码
password-new = 新密码
password-new-again = 再次输入新密码
password-submit = 设置密码

# 矿场
sites-title = 矿场
sites-sums = 所有矿场合计
sites-empty = 还没有矿场
sites-empty-how = 矿场是一处接入电网的托管地点。请在服务器上添加第一个矿场：
site-load = { $percent }%
site-sums = 本矿场合计
site-as-of = 最近读数
site-no-agents = 本矿场还没有代理
site-no-agents-how = 代理运行在矿机网络内的网关上，并向此处上报矿机。请在服务器上生成一次性注册令牌，然后在网关上交给 "hashinsight-agent enroll"：
site-no-miners = 还没有矿机
site-no-miners-how = 代理尚未上报任何矿机。请在网关上查看其清单：hashinsight-agent status

# 代理
agents-none = 无
agents-online = 已连接 { $online } / { $all }
agent-online = 已连接
agent-away = 未连接，最后在线
agent-never = 从未连接
agent-clock = 时钟不可靠
agent-clock-synced = 时钟由 NTP 同步
agent-clock-measured = 时钟以本服务器校准

# 概览
tile-power = 功率
tile-hashrate = 算力
tile-efficiency = 能效
tile-hottest = 最高温度
tile-hottest-where = 位于 { $place }
tile-miners = 矿机
tile-answering = 有应答的矿机
tile-ready = 可随时停机
tile-ready-miners = { $all } 台中的 { $count } 台，未经写入即已验证
tile-load = { $capacity } 的 { $percent }%

# 矿机状态
status-hashing = 运行中
status-starting = 启动中
status-curtailed = 限电停机
status-off = 已停机
status-fault = 故障
status-no_answer = 无应答
status-stale = 数据过期
mark-held = 计划中
mark-out-of-service = 停用
mark-protected = 受保护
mark-weak = 仅凭地址

# What stands against stopping a miner
block-not-recognised = 尚未识别
block-unreachable = 无应答
block-other-device = 该地址上是另一台设备
block-weak-identity = 仅凭地址识别
block-no-capability = 无法休眠
block-credential-refused = 拒绝登录
block-writes-off = 不接受写入
block-settings-unreadable = 无法读取设置
block-out-of-service = 停用中
block-protected = 受保护，不限电
block-journal = 网关日志无法写入
power-modelled = 非实测：按型号能效估算

# 列
column-site = 矿场
column-status = 状态
column-place = 机架 · 位置
column-model = 型号
column-firmware = 固件
column-hashrate = 算力
column-power = 功率
column-efficiency = J/TH
column-hottest = 最高温度
column-fans = 风扇
column-uptime = 运行时间
column-age = 读数时长
column-answering = 有应答
column-agents = 代理

# 表格
table-search = 搜索机架、型号、序列号……
table-all = 全部状态
table-sort = 排序
table-apply = 应用
table-count = 第 { $first }–{ $last } 台，共 { $total } 台
table-none = 没有符合条件的矿机
table-clear = 显示全部矿机
table-pages = 分页
table-page = 第 { $number } / { $pages } 页
table-previous = 上一页
table-next = 下一页

# 图表
chart-title = 功率与算力
chart-range = 时间范围
chart-empty = 此时段还没有读数。每五分钟出现一个点。
chart-failed = 图表加载失败，正在重试。
chart-time = 时间

# 计划
plans-empty = 还没有限电计划
plan-state = 状态
plan-goal = 目标
plan-goal-reduce = 降低 { $power }
plan-goal-all = 全部停机
plan-start = 开始
plan-length = 时长
plan-by = 下达人
plan-reason = 原因
plan-state-pending = 待批准
plan-state-approved = 已批准
plan-state-executing = 正在停机
plan-state-executed = 保持中
plan-state-recovering = 正在恢复
plan-state-completed = 已完成
plan-state-completed_with_failures = 已完成，有失败
plan-state-cancelled = 已取消
plan-state-expired = 已过期

# 实时更新
live-lost = 与服务器的连接已断开，数据停止更新。正在重试……
live-failed = 服务器应答异常，正在重试……

# 错误
error-home = 返回首页
error-not-found = 此处没有内容。
error-forbidden = 您的角色无权执行此操作，请联系所有者或管理员。
error-unauthenticated = 请先登录。
error-internal = 服务器内部出错。请重试；若仍失败，请查看服务器日志。
error-busy = 服务器繁忙，请一分钟后重试。
error-form = 无法读取表单。请返回并刷新页面后重试。
error-csrf = 页面已过期，请刷新后重试。
error-origin = 此请求来自其他网站，已被拒绝。
error-sign-in = 用户名或密码不正确。
error-too-many-tries =
    { $minutes ->
       *[other] 失败次数过多，请 { $minutes } 分钟后再试。
    }
error-too-many-sign-ins = 同时登录的人数过多，请几秒后再试。
error-password-first = 请先设置新密码。
error-password-short = 密码至少需要 { $least } 个字符。
error-password-long = 密码最多 { $most } 字节。
error-password-weak = 此密码太容易被猜到。
error-password-same = 新密码与旧密码相同。
error-password-again = 两次输入的新密码不一致。
error-password-old-wrong = 当前密码不正确。

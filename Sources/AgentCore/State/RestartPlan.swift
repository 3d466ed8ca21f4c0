/// What a restarted agent makes, of what is configured and what is recorded.
///
/// While the guest of the record lives, the record wins: the guest must find the disks that it has, whatever has been
/// written into the configuration since. The configuration adds what the record neither has nor has given up.
///
/// Without a living guest the configuration wins, and the record adds what clients had made under other names. What a
/// client had taken away of the configuration comes back.
struct RestartPlan {
    /// In this order. `fromRecord` tells what is not as configured, and so not worth the agent's end if it fails.
    let items: [RecordedItem]
    /// What the configuration asks for in another way than the living guest has it.
    let deferred: [RecordedItem]

    /// - Parameter isSameBoot: a guest of the record that does not live then has ended, and is not started again; after
    ///   a boot of the host it is.
    init(configured: [RecordedItem], record: AgentRecord, guestLives: Bool, isSameBoot: Bool) {
        if guestLives {
            items =
                record.items
                + configured.filter { item in
                    !record.items.contains(where: item.isRival) && !record.removed.contains(where: item.isRival)
                }
            deferred = configured.filter { item in
                record.items.contains { $0.isRival(of: item) && $0.arguments != item.arguments }
            }
        } else {
            items =
                configured
                + record.items.filter { item in
                    !item.isConfigured && !configured.contains(where: item.isRival)
                        && !(item.kind == .guest && isSameBoot)
                }
            deferred = []
        }
    }
}

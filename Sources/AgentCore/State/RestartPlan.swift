/// What a restarted agent makes, of what is configured and what is recorded.
///
/// While the guest of the record lives, the record wins: the guest must find the disks that it has, whatever has been
/// written into the configuration since. The configuration adds what the record neither has nor has given up.
///
/// Without a living guest the configuration wins, and the record adds what clients had made under other names. What a
/// client had taken away of the configuration comes back. One thing is older than the configuration: on which nodes the
/// configured guest's disks were last. A guest that was started on an image from which its disk has gone on to an overlay or a
/// copy would lose all that it has written since.
struct RestartPlan {
    /// In this order. `fromRecord` tells what is not as configured, and so not worth the agent's end if it fails.
    let items: [RecordedItem]
    /// What the configuration asks for in another way than the living guest has it.
    let deferred: [RecordedItem]

    /// - Parameter isSameBoot: a guest of the record that does not live then has ended, and is not started again; after
    ///   a boot of the host it is.
    init(configured: [RecordedItem], record: AgentRecord, guestLives: Bool, isSameBoot: Bool) {
        let plan: [RecordedItem]
        if guestLives {
            plan =
                record.items
                + configured.filter { item in
                    !record.items.contains(where: item.isRival) && !record.removed.contains(where: item.isRival)
                }
            deferred = configured.filter { item in
                record.items.contains { recorded in
                    recorded.isRival(of: item)
                        && recorded.arguments != item.serving(recorded.movedDisks, overriding: false).arguments
                }
            }
        } else {
            let others = record.items.filter { item in
                !item.isConfigured && !configured.contains(where: item.isRival)
                    && !(item.kind == .guest && isSameBoot)
            }
            let last = (record.items + record.removed).last { $0.kind == .guest && $0.isConfigured }
            if let guest = configured.first(where: { $0.kind == .guest }), let moved = last?.movedDisks, !moved.isEmpty
            {
                // Behind the nodes, which are the clients'.
                plan = configured.filter { $0.kind != .guest } + others + [guest.serving(moved, overriding: false)]
            } else {
                plan = configured + others
            }
            deferred = []
        }
        // Nodes change their places in the record as they do in the graph; objects refer to nothing.
        items = plan.filter { $0.kind == .object } + plan.filter { $0.kind != .object }
    }
}

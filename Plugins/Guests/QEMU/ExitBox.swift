import ColdframeKit
import KeeperWire

/// Takes the keeper's word that the guest has ended, before there is a guest object to tell.
@AgentActor
final class ExitBox {
    private(set) var exit: GuestExit?
    private weak var guest: QEMUGuest?

    nonisolated init() {}

    func deliver(_ exit: GuestExit) {
        self.exit = exit
        guest?.ended(exit)
    }

    func hand(to guest: QEMUGuest) {
        self.guest = guest
        if let exit { guest.ended(exit) }
    }
}

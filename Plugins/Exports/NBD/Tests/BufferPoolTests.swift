import Testing

@testable import NBDExport

@Suite struct BufferPoolTests {
    @Test func theLastBufferIsGivenOutFirst() {
        let pool = BufferPool(limit: 4)
        let (a, b) = (pool.take(1), pool.take(1))
        pool.give(a)
        pool.give(b)
        #expect(pool.take(100) === b)
        #expect(pool.take(100) === a)
    }

    @Test func aSmallBufferMakesRoomForALargeOne() {
        let pool = BufferPool(limit: 1)
        pool.give(pool.take(1))
        let large = pool.take(32 << 20)
        #expect(large.capacity == 32 << 20)
        pool.give(large)
        #expect(pool.hasLarge)
    }

    @Test func trimKeepsSmallBuffersOnly() {
        let pool = BufferPool(limit: 2)
        let (small, large) = (pool.take(1), pool.take(1 << 20))
        pool.give(small)
        pool.give(large)
        pool.trim()
        #expect(!pool.hasLarge)
        #expect(pool.take(1) === small)
    }

    @Test func moreThanTheLimitIsNotKept() {
        let pool = BufferPool(limit: 1)
        let (a, b) = (pool.take(1), pool.take(1))
        pool.give(a)
        pool.give(b)
        #expect(pool.take(1) === a)
        #expect(pool.take(1) !== b)
    }
}

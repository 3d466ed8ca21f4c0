/// Turns 64-bit words from the image's order into the host's, or back, in place.
func swapWords(_ words: UnsafeMutableBufferPointer<UInt64>) {
    for index in words.indices { words[index] = words[index].bigEndian }
}
